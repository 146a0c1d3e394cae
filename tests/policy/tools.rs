//! Tools that policies can be written about, without components.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep::policy::{Finding, Policies, Source, ToolShape};
use toolkeep_core::digest::Digest;
use toolkeep_core::manifest::ManifestText;
use toolkeep_core::principal::Principal;
use toolkeep_core::tier::Tier;

/// A tool of this name and tier, with members of its input and amounts.
pub(super) fn tool(name: &str, tier: u8, properties: &Value, amounts: &Value) -> Arc<ToolShape> {
    let manifest = json!({"format": 1, "name": name, "component": "c.wasm", "amounts": amounts});
    let manifest: ManifestText = serde_json::from_value(manifest).expect("a manifest");
    let digest = Digest::of(name.as_bytes());
    let manifest = manifest.check(digest).expect("a valid manifest");
    let schema = json!({"type": "object", "properties": properties});
    let tier = Tier::try_from(tier).expect("a tier");
    Arc::new(ToolShape::new(manifest.name.clone(), tier, digest, &manifest, &schema))
}

/// A tool with an input that nobody looks at.
pub(super) fn plain(name: &str, tier: u8) -> Arc<ToolShape> {
    tool(name, tier, &json!({"flag": {"type": "boolean"}}), &json!({}))
}

/// Files with their texts, as a set.
pub(super) fn set(files: &[(&str, &str)], tools: &[Arc<ToolShape>]) -> Result<Policies, Vec<Finding>> {
    let sources: Result<Vec<Source>, Finding> = files.iter().map(|(name, text)| Source::named(name, *text)).collect();
    Policies::new(sources.map_err(|finding| vec![finding])?, tools)
}

/// `tenant/user/agent`.
pub(super) fn principal(text: &str) -> Principal {
    let names: Vec<&str> = text.split('/').collect();
    Principal {
        tenant: names[0].parse().expect("a tenant"),
        user: names[1].parse().expect("a user"),
        agent: names[2].parse().expect("an agent"),
    }
}
