//! What the configuration says about oversight, and which folders no tool may be let near.

use std::collections::BTreeMap;
use std::path::Path;

use toolkeep_core::attention::AttentionRule;
use toolkeep_core::id::{ApprovalId, WorkspaceName};
use url::{Host, Url};

use super::text::ConfigText;
use super::{ConfigError, Workspace};

/// Where the id of the approval stands in the address of its page.
const APPROVAL: &str = "{approval}";
/// Longest address of a page, in bytes: what every browser and client takes.
const PAGE_MAX_BYTES: usize = 2_000;
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

/// The page of a console where people decide about one plan. Agents are told its address, for whoever uses them; whoever opens
/// it proves to the console who they are, which asks this daemon on the admin plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalPage {
    before: String,
    after: String,
}

impl ApprovalPage {
    /// Read `https://HOST/PATH{approval}`.
    ///
    /// # Errors
    /// It is no such address, or others could read or change what is sent there.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| {
            let example = "write `https://console.example.com/approvals/{approval}`";
            Err(ConfigError::value("oversight.approval_page", format!("`{text}` {problem}; {example}")))
        };
        let Some((before, after)) = text.split_once(APPROVAL).filter(|(_, after)| !after.contains(APPROVAL)) else {
            return wrong("does not have `{approval}` once, in its place");
        };
        if text.len() > PAGE_MAX_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("is too long or not plain ASCII");
        }
        let page = Self { before: before.to_owned(), after: after.to_owned() };
        let (Ok(one), Ok(two)) = (Url::parse(&page.with("1")), Url::parse(&page.with("2"))) else {
            return wrong("is no address");
        };
        let local = match one.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return wrong("names no host"),
        };
        if one.scheme() != "https" && !(one.scheme() == "http" && local) {
            return wrong("is not `https`, nor `http` on this machine");
        }
        if one.origin() != two.origin() || !one.username().is_empty() || one.password().is_some() {
            return wrong("has `{approval}` or a credential in its host");
        }
        Ok(page)
    }

    /// The address for one approval.
    #[must_use]
    pub fn of(&self, approval: ApprovalId) -> String {
        self.with(&approval.to_string())
    }

    fn with(&self, approval: &str) -> String {
        format!("{}{approval}{}", self.before, self.after)
    }
}

/// What one person may agree to in an hour at most, if the configuration bounds it.
const APPROVALS_PER_HOUR_MAX: u32 = 10_000;
/// Seconds between two agreements that are too few to have read the second: what is usual, and the most.
const HASTY_S: (u32, u32) = (2, 600);
/// Hasty agreements in a row that are told of: what is usual, and the most.
const HASTY_IN_A_ROW: (u32, u32) = (5, 1_000);

/// How much attention an approver is thought to have.
pub(super) fn check_attention(text: &ConfigText) -> Result<AttentionRule, ConfigError> {
    let bounded = |name: &str, value: Option<u32>, usual: u32, (least, most): (u32, u32)| {
        let value = value.unwrap_or(usual);
        let wrong =
            || ConfigError::value(format!("oversight.{name}"), format!("{value} is not between {least} and {most}"));
        if (least..=most).contains(&value) { Ok(value) } else { Err(wrong()) }
    };
    let oversight = &text.oversight;
    let per_hour = bounded("approvals_per_hour", oversight.approvals_per_hour, 0, (0, APPROVALS_PER_HOUR_MAX))?;
    let hasty_s = bounded("hasty_s", oversight.hasty_s, HASTY_S.0, (0, HASTY_S.1))?;
    let in_a_row = bounded("hasty_in_a_row", oversight.hasty_in_a_row, HASTY_IN_A_ROW.0, (1, HASTY_IN_A_ROW.1))?;
    Ok(AttentionRule {
        per_hour: Some(per_hour).filter(|most| *most > 0),
        hasty_ms: u64::from(hasty_s) * 1_000,
        in_a_row,
    })
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
    fn r51_the_page_of_an_approval_is_an_address_that_nobody_else_reads() {
        let id = ApprovalId::new(uuid::Uuid::nil());
        for (text, expected) in [
            ("https://keep.example/a/{approval}", format!("https://keep.example/a/{id}")),
            ("https://keep.example:8443/?id={approval}&x=1", format!("https://keep.example:8443/?id={id}&x=1")),
            ("http://127.0.0.1:9464/a#{approval}", format!("http://127.0.0.1:9464/a#{id}")),
            ("http://[::1]/{approval}", format!("http://[::1]/{id}")),
            ("http://localhost/{approval}", format!("http://localhost/{id}")),
        ] {
            assert_eq!(ApprovalPage::parse(text).map(|page| page.of(id)).map_err(|e| e.to_string()), Ok(expected));
        }
        for wrong in [
            "",
            "https://keep.example/a",
            "https://keep.example/{approval}/{approval}",
            "http://keep.example/{approval}",
            "http://localhost.example/{approval}",
            "ftp://keep.example/{approval}",
            "javascript:alert({approval})",
            "keep.example/{approval}",
            "https://{approval}.example/",
            "https://keep.example:{approval}/",
            "https://u:p@keep.example/{approval}",
            "https://u@keep.example/{approval}",
            "https://keep.example/a b/{approval}",
            "https://keep.example/\u{202e}{approval}",
        ] {
            let refused = ApprovalPage::parse(wrong).expect_err(wrong).to_string();
            assert!(refused.contains("oversight.approval_page"), "{refused}");
        }
        let long = |bytes: usize| format!("https://keep.example/{}{APPROVAL}", "a".repeat(bytes - 21 - APPROVAL.len()));
        assert!(ApprovalPage::parse(&long(PAGE_MAX_BYTES)).is_ok());
        assert!(ApprovalPage::parse(&long(PAGE_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn t_p8_bounds_of_attention_hold_at_the_most_and_not_above() {
        let checked = |text: &str| check_attention(&toml::from_str(&format!("[oversight]\n{text}")).expect("toml"));
        let usual = checked("").expect("the usual");
        assert_eq!(usual, AttentionRule { per_hour: None, hasty_ms: 2_000, in_a_row: 5 });
        assert_eq!(checked("approvals_per_hour = 10000").expect("the most").per_hour, Some(10_000));
        assert_eq!(checked("hasty_s = 600\nhasty_in_a_row = 1000").expect("the most").hasty_ms, 600_000);
        for wrong in ["approvals_per_hour = 10001", "hasty_s = 601", "hasty_in_a_row = 1001", "hasty_in_a_row = 0"] {
            assert!(checked(wrong).expect_err(wrong).to_string().contains("oversight."), "{wrong}");
        }
    }

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
