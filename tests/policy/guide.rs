//! The guide: its policies are one directory, and every case that it shows is run against them.

use std::sync::Arc;

use serde_json::json;
use toolkeep::policy::ToolShape;
use toolkeep::policy::case::CaseFile;

use super::tools::{plain, set, tool};

const GUIDE: &str = include_str!("../../docs/policy.md");

/// The blocks of a language in the guide: what stands behind it on the fence, and the text.
fn blocks(language: &str) -> Vec<(&'static str, &'static str)> {
    let fenced = GUIDE.split("\n```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .filter_map(|(head, text)| Some((head.strip_prefix(language)?.trim(), text)))
        .collect()
}

/// The tools that the guide is about.
fn tools() -> Vec<Arc<ToolShape>> {
    let refund = json!({"total": {"type": "number"}, "order": {"type": "string"}});
    vec![
        tool("refund", 2, &refund, &json!({"total": "/input/total"})),
        tool("deploy", 1, &json!({"branch": {"type": "string"}}), &json!({})),
        plain("report", 1),
        plain("post", 2),
    ]
}

#[test]
fn r17_every_example_of_the_guide_is_valid_and_says_what_the_guide_says() {
    let files = blocks("cedar");
    assert!(files.len() >= 6 && files.iter().all(|(name, _)| name.ends_with(".cedar")), "each example has a name");
    let tools = tools();
    let policies = set(&files, &tools).unwrap_or_else(|findings| panic!("{findings:?}"));
    assert!(policies.warnings().is_empty(), "{:?}", policies.warnings());
    let mut ran = 0;
    for (_, text) in blocks("toml").into_iter().filter(|(name, _)| *name == "cases") {
        let cases: CaseFile = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for case in cases.cases {
            let tool = tools.iter().find(|tool| tool.name == case.tool).expect("a tool of the guide");
            let result = case.run(&policies, tool, &[], 1_000).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert!(result.differs.is_empty(), "{}: {:?}: {}", case.name, result.differs, result.answer.view());
            ran += 1;
        }
    }
    assert!(ran >= 12, "{ran} cases");
}

#[test]
fn a_case_that_differs_says_how() {
    let tools = tools();
    let policies = set(&blocks("cedar"), &tools).expect("valid");
    let case = |more: &str| {
        let text = format!("[[case]]\nname = \"x\"\nprincipal = \"acme/ann/bot\"\ntool = \"report\"\n{more}");
        let file: CaseFile = toml::from_str(&text).expect("a case");
        file.cases[0].run(&policies, &tools[2], &[], 0).map(|ran| ran.differs).map_err(|error| error.to_string())
    };
    assert_eq!(case("expect = \"allow\"").expect("runs"), [""; 0]);
    assert_eq!(case("expect = \"deny\"").expect("runs"), ["expected `deny`, got `allow`"]);
    assert_eq!(case("expect = \"allow\"\napprovers = 1").expect("runs").len(), 1);
    assert_eq!(case("expect = \"allow\"\ngroups = [\"a\"]").expect("runs").len(), 1);
    assert!(case("expect = \"allow\"\nat = \"noon\"").expect_err("no time").contains("`at`"));
    let burn = "expect = \"deny\"\n[[case.effect]]\nkind = \"file.burn\"";
    assert_eq!(case(burn).expect_err("no kind"), "`file.burn` is not an effect kind");
    let nowhere = "expect = \"deny\"\n[[case.effect]]\nkind = \"file.write\"";
    assert_eq!(case(nowhere).expect_err("no path"), "an effect `file.write` needs `path`");
}
