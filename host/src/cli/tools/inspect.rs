//! `toolkeep tools inspect`: a tool of the daemon, or a component in a file.
//!
//! A file is looked at without running it: its descriptors are in a section of its own, its imports, and the functions of
//! one that was not built with the SDK, in its type.

use std::path::Path;

use serde_json::{Value, json};
use toolkeep_core::descriptor::{Descriptor, Descriptors};
use toolkeep_core::digest::Digest;
use toolkeep_core::display::{visible, visible_json, visible_lines};
use toolkeep_sandbox::component;
use toolkeep_sandbox::prescreen::{Contract, offers, prescreen};
use toolkeep_sandbox::typed::{self, Exported};

use super::super::context::Context;
use super::super::exit::Exit;
use super::super::failure::Failure;
use super::super::ui::text_at;
use super::needs::Need;
use super::pack::read_component;
use crate::daemon::method::AgentMethod;

/// Inspect `tool`, which is a file where it looks like one. With `draft`, write a manifest for it.
pub(super) fn run(context: &Context<'_>, tool: &str, draft: bool) -> Result<Exit, Failure> {
    if tool.contains('/') || Path::new(tool).extension().is_some_and(|end| end == "wasm") {
        return file(context, Path::new(tool), draft);
    }
    if draft {
        return Err(Failure::usage("`--draft` is for a component in a file", "give the path of a `.wasm` file"));
    }
    let detail = context.agent()?.ask(&context.ui, AgentMethod::ToolsDescribe, json!({"tool": tool}))?;
    context.ui.value(&detail, || installed(&detail))?;
    Ok(Exit::Ok)
}

/// A component as its file shows it.
struct Seen {
    wasm: Vec<u8>,
    imports: Vec<String>,
    functions_of_modules: Option<u64>,
    described: Option<Descriptors>,
    exported: Vec<Exported>,
    problems: Vec<String>,
}

impl Seen {
    fn of(wasm: Vec<u8>) -> Result<Self, Failure> {
        let imports = component::imports(&wasm).map_err(|error| Failure::Findings(error.to_string()))?;
        let facts = prescreen(&wasm);
        let mut problems: Vec<String> = facts.as_ref().err().map(ToString::to_string).into_iter().collect();
        let (mut described, mut exported) = (None, Vec::new());
        if facts.as_ref().is_ok_and(|facts| facts.contract == Contract::Functions) {
            match typed::functions(&wasm) {
                Ok(functions) if functions.iter().any(|export| export.function.is_ok()) => exported = functions,
                Ok(functions) => {
                    problems.push("none of its functions can be a tool".to_owned());
                    exported = functions;
                }
                Err(error) => problems.push(error.to_string()),
            }
        } else {
            match component::descriptors(&wasm) {
                Ok(descriptors) => described = Some(descriptors),
                Err(error) => problems.push(format!("{error}; write the section with `toolkeep tools pack`")),
            }
        }
        let functions_of_modules = facts.ok().map(|facts| facts.functions);
        Ok(Self { wasm, imports, functions_of_modules, described, exported, problems })
    }

    fn value(&self, manifest: Option<&str>) -> Value {
        let refused: Vec<&String> = self.imports.iter().filter(|import| !offers(import)).collect();
        let needs: Vec<Value> = Need::of(&self.imports).into_iter().map(Need::told).collect();
        json!({
            "component": Digest::of(&self.wasm),
            "bytes": self.wasm.len(),
            "imports": self.imports,
            "refused": refused,
            "needs": needs,
            "functions": self.functions_of_modules,
            "tools": self.described.as_ref().map(|described| json!(described.tools)).unwrap_or_default(),
            "exports": self.exported.iter().map(export_value).collect::<Vec<_>>(),
            "sdk": self.described.as_ref().map(|described| described.sdk.clone()),
            "problems": self.problems,
            "manifest": manifest,
        })
    }
}

fn export_value(export: &Exported) -> Value {
    match &export.function {
        Ok(function) => json!({
            "export": export.label,
            "signature": function.to_string(),
            "name": export.label.name().ok(),
            "input_schema": function.input_schema(),
            "output_schema": function.output_schema(),
            "error_schema": function.error_schema(),
        }),
        Err(problem) => json!({"export": export.label, "problem": problem.to_string()}),
    }
}

/// A component in a file. What the daemon would refuse is a finding.
fn file(context: &Context<'_>, path: &Path, draft: bool) -> Result<Exit, Failure> {
    let seen = Seen::of(read_component(path)?)?;
    let manifest = seen.problems.is_empty().then(|| {
        let needs = Need::of(&seen.imports);
        super::draft::manifest(path, &seen.exported, &needs)
    });
    let value = seen.value(manifest.as_deref());
    match (draft, &manifest) {
        (true, Some(manifest)) => {
            context.ui.value(&json!({"manifest": manifest}), || visible_lines(manifest).into_owned())?;
        }
        (true, None) => {}
        (false, _) => context.ui.value(&value, || component_text(&value, &seen))?,
    }
    match seen.problems.first() {
        None => Ok(Exit::Ok),
        Some(problem) => {
            Err(Failure::Findings(format!("the daemon would refuse this component: {}", visible(problem))))
        }
    }
}

fn component_text(value: &Value, seen: &Seen) -> String {
    let mut text = format!("component  {}\nbytes      {}\n", text_at(value, "/component"), text_at(value, "/bytes"));
    match &seen.described {
        Some(described) => text.push_str(&format!("built with {}\n", visible(&described.sdk))),
        None => text.push_str("built with its own interface\n"),
    }
    text.push_str("imports\n");
    for import in &seen.imports {
        let mark = if offers(import) { "" } else { "  (not offered here)" };
        text.push_str(&format!("  {}{mark}\n", visible(import)));
    }
    let needs = Need::of(&seen.imports);
    if !needs.is_empty() {
        text.push_str("needs\n");
    }
    for need in needs {
        text.push_str(&format!("  {}\n", need.line()));
    }
    for tool in seen.described.as_ref().map(|described| described.tools.as_slice()).unwrap_or_default() {
        text.push_str(&described_text(tool));
    }
    for export in &seen.exported {
        text.push_str(&export_text(export));
    }
    for problem in &seen.problems {
        text.push_str(&format!("\nproblem: {}\n", visible(problem)));
    }
    if seen.problems.is_empty() {
        text.push_str("\na first manifest: `toolkeep tools inspect --draft`\n");
    }
    text
}

fn described_text(tool: &Descriptor) -> String {
    let description = &tool.description;
    let mut text = format!("\ntool {}\n", tool.name);
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
    text
}

fn export_text(export: &Exported) -> String {
    let mut text = format!("\nfunction {}\n", visible(export.label.as_str()));
    match &export.function {
        Err(problem) => text.push_str(&format!("  cannot be a tool: {}\n", visible(&problem.to_string()))),
        Ok(function) => {
            text.push_str(&format!("  {}\n", visible(&function.to_string())));
            match export.label.name() {
                Ok(name) => text.push_str(&format!("  name: {name}\n")),
                Err(_) => text.push_str("  name: too long; its manifest has to give one\n"),
            }
            text.push_str(&format!("  input: {}\n", visible_json(&function.input_schema().to_string())));
            text.push_str(&format!("  output: {}\n", visible_json(&function.output_schema().to_string())));
            if function.can_fail() {
                text.push_str(&format!("  error: {}\n", visible_json(&function.error_schema().to_string())));
            }
        }
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
