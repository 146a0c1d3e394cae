//! What the configuration says about oversight, and which folders no tool may be let near.

use std::collections::BTreeMap;
use std::path::Path;

use toolkeep_core::id::WorkspaceName;

use super::text::ConfigText;
use super::{ConfigError, Workspace};

/// Boundaries that one run may test if the configuration does not say.
const HOLD_RUN_AFTER: u32 = 10;

pub(super) fn check_hold(text: &ConfigText) -> Result<Option<u32>, ConfigError> {
    match text.oversight.hold_run_after {
        None => Ok(Some(HOLD_RUN_AFTER)),
        Some(0) => Ok(None),
        Some(most) if most <= 1_000 => Ok(Some(most)),
        Some(most) => {
            Err(ConfigError::value("oversight.hold_run_after", format!("{most} is not between 0 (never) and 1000")))
        }
    }
}

/// A tool that could change manifests, policies, sockets or the configuration could grant itself the rest.
pub(super) fn refuse_own_folders<'p>(
    workspaces: &BTreeMap<WorkspaceName, Workspace>,
    own: impl Iterator<Item = &'p Path>,
) -> Result<(), ConfigError> {
    for folder in own {
        if let Some((name, _)) = workspaces.iter().find(|(_, workspace)| folder.starts_with(&workspace.path)) {
            let problem = format!("`{}` is the daemon's own and must lie outside of every workspace", folder.display());
            return Err(ConfigError::value(format!("workspace.{name}.path"), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn t_f9_no_workspace_holds_what_the_daemon_is_ruled_by() {
        let workspace = |path: &str| {
            let (path, tenant) = (PathBuf::from(path), "t".parse().expect("name"));
            BTreeMap::from([("w".parse().expect("name"), Workspace { path, tenant })])
        };
        let own = || ["/srv/keep/tools", "/srv/keep/policies"].into_iter().map(Path::new);
        for wrong in ["/srv/keep/tools", "/srv/keep", "/srv"] {
            let refused = refuse_own_folders(&workspace(wrong), own()).expect_err(wrong).to_string();
            assert!(refused.contains("workspace.w.path"), "{refused}");
        }
        for fine in ["/srv/keep/tools/inside", "/srv/keep/books", "/srv/other"] {
            assert!(refuse_own_folders(&workspace(fine), own()).is_ok(), "{fine}");
        }
    }
}
