//! Capabilities: what a manifest may grant. No grant, no capability.
//!
//! A grant is data that was checked when the manifest was read: globs are compiled, contradictions refused. Asking it is
//! a pure function of a path. Sensitive paths (configuration of agents, editors, CI and credentials) are
//! denied to every grant that does not name their class.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::id::WorkspaceName;
use crate::path::WorkspacePath;

/// Most globs in one grant: matching cost is linear in them.
pub const GLOBS_MAX: usize = 64;

/// Whether a workspace is seen or also changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// Also stage changes.
    Write,
}

/// A set of path patterns (`*` stays within a component, `**` crosses them).
#[derive(Debug, Clone)]
pub struct PathGlobs {
    patterns: Vec<String>,
    set: GlobSet,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGlob {
    /// The pattern does not parse.
    #[error("`{pattern}` is not a path pattern: {problem}")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
    /// More than [`GLOBS_MAX`] patterns.
    #[error("{count} patterns in one list; at most 64 are allowed")]
    TooMany {
        /// How many there were.
        count: usize,
    },
}

impl PathGlobs {
    /// Compile patterns.
    ///
    /// # Errors
    /// A pattern does not parse, or there are too many.
    pub fn new(patterns: &[String]) -> Result<Self, BadGlob> {
        if patterns.len() > GLOBS_MAX {
            return Err(BadGlob::TooMany { count: patterns.len() });
        }
        let syntax = |pattern: &str, problem: String| BadGlob::Syntax { pattern: pattern.to_owned(), problem };
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            if pattern.is_empty() || pattern.starts_with('/') || pattern.split('/').any(|c| c == "..") {
                return Err(syntax(pattern, "write it relative to the workspace, without `..`".to_owned()));
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(false)
                .build()
                .map_err(|e| syntax(pattern, e.kind().to_string()))?;
            builder.add(glob);
        }
        let set = builder.build().map_err(|e| syntax(&patterns.join(", "), e.to_string()))?;
        Ok(Self { patterns: patterns.to_vec(), set })
    }

    /// The set that matches every path.
    #[must_use]
    pub fn everything() -> Self {
        Self::new(&["**".to_owned()]).unwrap_or_else(|_| Self { patterns: Vec::new(), set: GlobSet::empty() })
    }

    /// Whether a pattern matches.
    #[must_use]
    pub fn matches(&self, path: &WorkspacePath) -> bool {
        self.set.is_match(path.as_str())
    }

    /// The patterns as written.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}

/// What a tool may do in one workspace.
#[derive(Debug, Clone)]
pub struct FileGrant {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The most that any path allows.
    pub access: Access,
    /// Paths that may be read. Directories above a readable path may be listed and traversed.
    pub read: PathGlobs,
    /// Paths that may be changed, if `access` is [`Access::Write`].
    pub write: PathGlobs,
    /// Sensitive-path classes that the grant names; all others are denied.
    pub sensitive: Vec<SensitiveClass>,
}

/// Why a path is refused by a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// No read pattern matches.
    #[error("no read pattern of the manifest matches this path")]
    NotReadable,
    /// The workspace is read-only, or no write pattern matches.
    #[error("the manifest does not grant writing to this path")]
    NotWritable,
    /// The path is in a sensitive class that the grant does not name.
    #[error("the path is sensitive ({}) and the manifest does not name that class", .0.name())]
    Sensitive(SensitiveClass),
}

impl FileGrant {
    /// Whether content at `path` may be read.
    ///
    /// # Errors
    /// Says which rule refuses it.
    pub fn check_read(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        self.check_sensitive(path)?;
        if path.is_root() || self.read.matches(path) { Ok(()) } else { Err(GrantRefusal::NotReadable) }
    }

    /// Whether a change of `path` may be staged.
    ///
    /// # Errors
    /// Says which rule refuses it.
    pub fn check_write(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        self.check_sensitive(path)?;
        if self.access == Access::Write && !path.is_root() && self.write.matches(path) {
            Ok(())
        } else {
            Err(GrantRefusal::NotWritable)
        }
    }

    fn check_sensitive(&self, path: &WorkspacePath) -> Result<(), GrantRefusal> {
        match SensitiveClass::of(path) {
            Some(class) if !self.sensitive.contains(&class) => Err(GrantRefusal::Sensitive(class)),
            _ => Ok(()),
        }
    }
}

/// Paths whose content or change gives power over agents, editors, build machines or accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SensitiveClass {
    /// Instructions and configuration that agents and editors load by themselves.
    AgentConfig,
    /// Files that run by themselves: hooks, CI workflows, direnv.
    Automation,
    /// Keys, tokens and passwords.
    Credentials,
}

/// Names of [`SensitiveClass::AgentConfig`], in lower case.
const AGENT: &[&str] = &[
    ".mcp.json",
    "mcp.json",
    ".cursor",
    ".cursorrules",
    ".cursorignore",
    ".claude",
    ".claude.json",
    "claude.md",
    "claude.local.md",
    "agents.md",
    "agents.override.md",
    "gemini.md",
    ".gemini",
    ".codex",
    ".continue",
    ".aider.conf.yml",
    ".windsurf",
    ".windsurfrules",
    ".roo",
    ".roorules",
    ".cline",
    ".clinerules",
    ".vscode",
    ".idea",
    ".zed",
    ".copilot",
    ".toolkeep",
];

/// Names of [`SensitiveClass::Automation`]; some more depend on what follows them.
const AUTOMATION: &[&str] = &[
    ".envrc",
    ".gitlab-ci.yml",
    ".travis.yml",
    ".circleci",
    ".husky",
    ".pre-commit-config.yaml",
    "jenkinsfile",
    ".gitmodules",
    ".gitattributes",
    ".gitconfig",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".config",
    ".buildkite",
    ".drone.yml",
    ".devcontainer",
    ".devcontainer.json",
    ".tool-versions",
    ".mise.toml",
];

/// Names of [`SensitiveClass::Credentials`]; some more are known by their ending.
const CREDENTIALS: &[&str] = &[
    ".ssh",
    ".aws",
    ".azure",
    ".gnupg",
    ".kube",
    ".docker",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".pgpass",
    ".my.cnf",
    ".htpasswd",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials.json",
    "service-account.json",
    ".boto",
    ".vault-token",
    ".terraformrc",
    ".gcloud",
    ".password-store",
];

impl SensitiveClass {
    /// The word for it in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentConfig => "agent-config",
            Self::Automation => "automation",
            Self::Credentials => "credentials",
        }
    }

    /// All classes.
    pub const ALL: [Self; 3] = [Self::AgentConfig, Self::Automation, Self::Credentials];

    /// The class of a path, compared without regard to ASCII case: a case-folding file system must not open a gap.
    #[must_use]
    pub fn of(path: &WorkspacePath) -> Option<Self> {
        let components: Vec<String> = path.components().map(str::to_ascii_lowercase).collect();
        components.iter().enumerate().find_map(|(at, name)| {
            let next = components.get(at + 1).map(String::as_str);
            Self::of_component(name, next)
        })
    }

    fn of_component(name: &str, next: Option<&str>) -> Option<Self> {
        if AGENT.contains(&name) {
            return Some(Self::AgentConfig);
        }
        if AUTOMATION.contains(&name)
            || (name == ".git")
            || (name == ".github"
                && next.is_none_or(|n| matches!(n, "workflows" | "actions" | "copilot-instructions.md")))
            || (name == ".cargo" && next.is_none_or(|n| n.starts_with("config")))
        {
            return Some(Self::Automation);
        }
        let key_file = [".pem", ".key", ".p12", ".pfx", ".jks", ".keystore"].iter().any(|end| name.ends_with(end));
        if CREDENTIALS.contains(&name) || key_file || name == ".env" || name.starts_with(".env.") {
            return Some(Self::Credentials);
        }
        None
    }
}

/// Which clock a tool sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockGrant {
    /// Wall clock frozen at admission, monotonic clock virtual.
    #[default]
    Frozen,
    /// The host's clocks; every reading is recorded.
    Real,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WorkspacePath {
        text.parse().expect(text)
    }

    fn grant(access: Access, read: &[&str], write: &[&str], sensitive: &[SensitiveClass]) -> FileGrant {
        let globs =
            |list: &[&str]| PathGlobs::new(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).expect("globs");
        FileGrant {
            workspace: "books".parse().expect("name"),
            access,
            read: globs(read),
            write: globs(write),
            sensitive: sensitive.to_vec(),
        }
    }

    #[test]
    fn r01_a_path_without_a_matching_pattern_is_refused() {
        let grant = grant(Access::Write, &["ledger/**"], &["reports/*.md"], &[]);
        assert_eq!(grant.check_read(&path("ledger/2026/a.csv")), Ok(()));
        assert_eq!(grant.check_read(&path("other/a.csv")), Err(GrantRefusal::NotReadable));
        assert_eq!(grant.check_write(&path("reports/a.md")), Ok(()));
        assert_eq!(grant.check_write(&path("reports/deep/a.md")), Err(GrantRefusal::NotWritable));
        assert_eq!(grant.check_write(&path("ledger/a.csv")), Err(GrantRefusal::NotWritable));
    }

    #[test]
    fn a_read_grant_never_writes_whatever_the_patterns_say() {
        let grant = grant(Access::Read, &["**"], &["**"], &[]);
        assert_eq!(grant.check_write(&path("a")), Err(GrantRefusal::NotWritable));
    }

    #[test]
    fn t_f9_sensitive_paths_are_denied_in_every_case_and_depth() {
        let open = grant(Access::Write, &["**"], &["**"], &[]);
        for text in [
            ".git/hooks/pre-commit",
            "sub/.GIT/config",
            ".mcp.json",
            "a/CLAUDE.md",
            "AGENTS.md",
            ".env",
            ".env.local",
            "x/.ssh/id_rsa",
            ".github/workflows/ci.yml",
            ".envrc",
            ".vscode/settings.json",
            "certs/server.pem",
            ".cargo/config.toml",
        ] {
            assert!(matches!(open.check_read(&path(text)), Err(GrantRefusal::Sensitive(_))), "{text}");
            assert!(matches!(open.check_write(&path(text)), Err(GrantRefusal::Sensitive(_))), "{text}");
        }
        for text in ["environment.md", "src/git.rs", ".github/ISSUE_TEMPLATE.md", "a.envelope"] {
            assert_eq!(open.check_read(&path(text)), Ok(()), "{text}");
        }
        let named = grant(Access::Write, &["**"], &["**"], &[SensitiveClass::Automation]);
        assert_eq!(named.check_write(&path(".git/hooks/x")), Ok(()));
        assert!(named.check_write(&path(".env")).is_err());
    }

    #[test]
    fn globs_hold_at_n_and_n_plus_1_and_refuse_escapes() {
        let many = |n: usize| PathGlobs::new(&vec!["a".to_owned(); n]).is_ok();
        assert!(many(GLOBS_MAX) && !many(GLOBS_MAX + 1));
        for wrong in ["", "/etc/*", "../x", "a/../b", "[", "{a"] {
            assert!(PathGlobs::new(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert!(PathGlobs::everything().matches(&path("a/b")));
    }
}
