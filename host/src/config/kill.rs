//! `[kill]`: who may stop everything, whom to ask about it, and the file that does it without anybody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toolkeep_core::id::UserName;

use super::{ConfigError, Workspace, absolute};

/// The kill file where the configuration names none, in the state folder.
const FILE: &str = "kill";
/// Bytes of what is said about whom to ask: an address, or a line.
const CONTACT_MAX_BYTES: usize = 200;

/// `[kill]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillText {
    /// See [`KillConfig::file`].
    pub file: Option<PathBuf>,
    /// See [`KillConfig::operators`].
    #[serde(default)]
    pub operators: Vec<UserName>,
    /// See [`KillConfig::contact`].
    pub contact: Option<String>,
}

/// What is configured about the kill switch.
#[derive(Debug, Clone)]
pub struct KillConfig {
    /// Its presence stops everything.
    pub file: PathBuf,
    /// Who may set and clear the global level, and the levels of other tenants. Where there is one tenant, everybody may.
    pub operators: BTreeSet<UserName>,
    /// Told to everybody who is refused, besides who set the switch.
    pub contact: Option<Arc<str>>,
}

impl KillText {
    /// What it means.
    ///
    /// # Errors
    /// The file lies where a tool could remove it, or the contact is no line.
    pub(super) fn check<'w>(
        &self,
        base: Option<&Path>,
        state_dir: &Path,
        workspaces: impl Iterator<Item = &'w Workspace>,
    ) -> Result<KillConfig, ConfigError> {
        let file = match &self.file {
            Some(path) => absolute("kill.file", path, base)?,
            None => state_dir.join(FILE),
        };
        if let Some(workspace) = workspaces.into_iter().find(|workspace| file.starts_with(&workspace.path)) {
            let problem = format!("lies in the workspace `{}`, where a tool could remove it", workspace.path.display());
            return Err(ConfigError::value("kill.file", problem));
        }
        let line = |text: &String| (1..=CONTACT_MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        if self.contact.as_ref().is_some_and(|contact| !line(contact)) {
            return Err(ConfigError::value("kill.contact", "write 1 to 200 bytes on one line, for example an address"));
        }
        Ok(KillConfig {
            file,
            operators: self.operators.iter().cloned().collect(),
            contact: self.contact.as_deref().map(Arc::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &str) -> Result<KillConfig, String> {
        let text: KillText = toml::from_str(lines).expect("shape");
        let workspace = Workspace { path: "/srv/books".into(), tenant: "acme".parse().expect("name") };
        text.check(Some(Path::new("/etc/toolkeep")), Path::new("/state"), [workspace].iter()).map_err(|e| e.to_string())
    }

    #[test]
    fn r25_the_kill_file_lies_where_no_tool_can_remove_it() {
        assert_eq!(checked("").expect("defaults").file, Path::new("/state/kill"));
        assert_eq!(checked("file = \"stop\"").expect("relative").file, Path::new("/etc/toolkeep/stop"));
        let refused = checked("file = \"/srv/books/stop\"").expect_err("in a workspace");
        assert!(refused.contains("kill.file") && refused.contains("/srv/books"), "{refused}");
    }

    #[test]
    fn r25_the_contact_is_one_line_of_at_most_200_bytes() {
        let contact = |text: &str| checked(&format!("contact = {text:?}")).is_ok();
        assert!(contact(&"x".repeat(CONTACT_MAX_BYTES)) && !contact(&"x".repeat(CONTACT_MAX_BYTES + 1)));
        assert!(!contact("") && !contact("a\nb"));
    }
}
