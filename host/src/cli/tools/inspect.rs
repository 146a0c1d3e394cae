//! `toolkeep tools inspect`: a tool of the daemon, or a component in a file.
//!
//! A file is looked at without running it: its descriptors are in a section of its own, its imports in its type.

use std::path::Path;

use serde_json::{Value, json};
use toolkeep_core::descriptor::Descriptors;
use toolkeep_core::digest::Digest;
use toolkeep_core::display::{visible, visible_json, visible_lines};
use toolkeep_sandbox::component;
use toolkeep_sandbox::prescreen::{offers, prescreen};

use super::super::context::Context;
use super::super::exit::Exit;
use super::super::failure::Failure;
use super::super::ui::text_at;
use super::pack::read_component;
use crate::daemon::method::AgentMethod;

/// Inspect `tool`, which is a file where it looks like one.
pub(super) fn run(context: &Context<'_>, tool: &str) -> Result<Exit, Failure> {
    if tool.contains('/') || Path::new(tool).extension().is_some_and(|end| end == "wasm") {
        return file(context, Path::new(tool));
    }
    let detail = context.agent()?.ask(&context.ui, AgentMethod::ToolsDescribe, json!({"tool": tool}))?;
    context.ui.value(&detail, || installed(&detail))?;
    Ok(Exit::Ok)
}

/// A component in a file. What the daemon would refuse is a finding.
fn file(context: &Context<'_>, path: &Path) -> Result<Exit, Failure> {
    let wasm = read_component(path)?;
    let facts = prescreen(&wasm);
    let imports = component::imports(&wasm).map_err(|error| Failure::Findings(error.to_string()))?;
    let described = component::descriptors(&wasm);
    let problems: Vec<String> = [
        facts.as_ref().err().map(ToString::to_string),
        described.as_ref().err().map(|error| format!("{error}; write the section with `toolkeep tools pack`")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let value = json!({
        "component": Digest::of(&wasm),
        "bytes": wasm.len(),
        "imports": imports,
        "functions": facts.as_ref().map(|facts| facts.functions).ok(),
        "tools": described.as_ref().map(|described| json!(described.tools)).unwrap_or_default(),
        "sdk": described.as_ref().map(|described| described.sdk.clone()).ok(),
        "problems": problems,
    });
    context.ui.value(&value, || component_text(&value, &imports, described.as_ref().ok(), &problems))?;
    match problems.first() {
        None => Ok(Exit::Ok),
        Some(problem) => {
            Err(Failure::Findings(format!("the daemon would refuse this component: {}", visible(problem))))
        }
    }
}

fn component_text(value: &Value, imports: &[String], described: Option<&Descriptors>, problems: &[String]) -> String {
    let mut text = format!(
        "component  {}\nbytes      {}\nbuilt with {}\n",
        text_at(value, "/component"),
        text_at(value, "/bytes"),
        text_at(value, "/sdk")
    );
    text.push_str("imports\n");
    for import in imports {
        let mark = if offers(import) { "" } else { "  (not offered here)" };
        text.push_str(&format!("  {}{mark}\n", visible(import)));
    }
    for tool in described.map(|described| described.tools.as_slice()).unwrap_or_default() {
        let description = &tool.description;
        text.push_str(&format!("\ntool {}\n", tool.name));
        for (part, words) in [
            ("what", &description.what),
            ("when", &description.when),
            ("side effects", &description.side_effects),
            ("errors", &description.errors),
        ] {
            text.push_str(&format!("  {part}: {}\n", visible_lines(words.trim()).replace('\n', "\n    ")));
        }
        let effects = if tool.effects.is_empty() { "none".to_owned() } else { tool.effects.join(", ") };
        text.push_str(&format!("  says that it may stage: {}\n", visible(&effects)));
        text.push_str(&format!("  input: {}\n", visible_json(&tool.input_schema.to_string())));
        text.push_str(&format!("  output: {}\n", visible_json(&tool.output_schema.to_string())));
    }
    for problem in problems {
        text.push_str(&format!("\nproblem: {}\n", visible(problem)));
    }
    text
}

/// A tool as the daemon offers it.
fn installed(detail: &Value) -> String {
    let mut text = String::new();
    for (name, pointer) in [
        ("tool", "/name"),
        ("title", "/title"),
        ("version", "/version"),
        ("tier", "/tier"),
        ("component", "/component"),
        ("bytes", "/component_bytes"),
        ("manifest", "/manifest"),
        ("effects", "/declared_effects"),
    ] {
        text.push_str(&format!("{name:<10} {}\n", text_at(detail, pointer)));
    }
    let description = detail.get("description").and_then(Value::as_str).unwrap_or_default();
    text.push_str(&format!("\n{}\n\ngrants\n", visible_lines(description)));
    let grants = detail.get("workspaces").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for grant in grants {
        let (workspace, access) = (text_at(grant, "/workspace"), text_at(grant, "/access"));
        let mut line = format!("  {workspace}: {access}, reads {}", text_at(grant, "/read"));
        if access == "write" {
            line.push_str(&format!(", writes {}", text_at(grant, "/write")));
        }
        text.push_str(&format!("{line}\n"));
    }
    if grants.is_empty() {
        text.push_str("  nothing\n");
    }
    text.push_str(&format!("\ninput      {}\n", text_at(detail, "/input_schema")));
    text.push_str(&format!("output     {}\n", text_at(detail, "/output_schema")));
    text.push_str(&format!("limits     {}\n", text_at(detail, "/limits")));
    text
}
