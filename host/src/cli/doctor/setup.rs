//! What the configuration says, and how its directories lie on disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Finding;
use crate::config::{Config, Environment, Loaded};
use crate::daemon::socket::SocketPaths;

/// Check the set-up.
pub(super) fn check(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    let mut findings = vec![files(loaded), planes(config), solo(config)];
    findings.extend(directories(config));
    findings.extend(workspaces(config));
    findings.push(tools(config));
    findings
}

fn files(loaded: &Loaded) -> Finding {
    const CHECK: &str = "configuration";
    let names: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    if names.is_empty() {
        let hint = "`toolkeep config init` writes a commented one";
        return Finding::warning(CHECK, "there is no file: the defaults apply, and no workspace exists", hint);
    }
    Finding::well(CHECK, names.join(", "))
}

/// Where agent and operator share a uid, the kernel cannot tell them apart.
fn planes(config: &Config) -> Finding {
    const CHECK: &str = "agent and operator";
    let shared: Vec<String> =
        config.operators.keys().filter(|uid| config.principals.contains_key(uid)).map(ToString::to_string).collect();
    if shared.is_empty() {
        return Finding::well(CHECK, "are different users: an agent cannot reach the admin socket");
    }
    Finding::warning(
        CHECK,
        format!("share uid {}: only the token file keeps them apart", shared.join(", ")),
        "the token stops an agent that keeps to its tools; one that may read files of its own user can read the token \
         and approve its own plans. Give agents a user of their own (`[[principal]]`) where that matters",
    )
}

fn solo(config: &Config) -> Finding {
    const CHECK: &str = "irreversible plans";
    match (config.solo, config.environment) {
        (false, _) => Finding::well(CHECK, "need two people"),
        (true, Environment::Prod) => Finding::problem(
            CHECK,
            "`daemon.solo` is on in production: one person agrees alone",
            "set `solo = false` and map a second operator",
        ),
        (true, Environment::Dev | Environment::Staging) => Finding::warning(
            CHECK,
            "`daemon.solo` is on: one person agrees alone, with a typed confirmation",
            "right for one person's machine, not for a team's",
        ),
    }
}

fn directories(config: &Config) -> Vec<Finding> {
    let sockets = SocketPaths::beneath(&config.runtime_dir);
    let mut findings = vec![
        private("state directory", &config.state_dir, 0o700),
        private("runtime directory", &config.runtime_dir, 0o755),
    ];
    for (check, socket, most) in [("agent socket", &sockets.agent, 0o750), ("admin socket", &sockets.admin, 0o700)] {
        if let Some(directory) = socket.parent() {
            findings.push(private(check, directory, most));
        }
    }
    findings.push(private("admin token", &sockets.admin_token, 0o600));
    findings
}

/// Whether something is ours and has no more permissions than `most`.
fn private(check: &'static str, path: &Path, most: u32) -> Finding {
    let shown = path.display();
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::well(check, format!("`{shown}` is made when the daemon starts"));
        }
        Err(error) => {
            return Finding::warning(check, format!("`{shown}`: {error}"), "run the doctor as the daemon's user");
        }
    };
    let mode = found.mode() & 0o777;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Finding::warning(
            check,
            format!("`{shown}` belongs to uid {}", found.uid()),
            "run the doctor as the daemon's user, or give it what belongs to it",
        );
    }
    if mode & !most != 0 {
        return Finding::problem(
            check,
            format!("`{shown}` has mode {mode:03o}; {most:03o} is the most"),
            format!("chmod {most:03o} {shown}"),
        );
    }
    Finding::well(check, format!("`{shown}` ({mode:03o})"))
}

fn workspaces(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "workspace";
    let mut findings = Vec::new();
    for (name, workspace) in &config.workspaces {
        let shown = workspace.path.display();
        findings.push(match std::fs::symlink_metadata(&workspace.path) {
            Ok(found) if found.is_dir() => Finding::well(CHECK, format!("`{name}` is `{shown}`")),
            Ok(_) => {
                Finding::problem(CHECK, format!("`{name}`: `{shown}` is no directory"), "name a directory, not a link")
            }
            Err(error) => {
                Finding::problem(CHECK, format!("`{name}`: `{shown}`: {error}"), "make it, or correct the path")
            }
        });
        let inside =
            config.workspaces.iter().find(|(other, outer)| *other != name && workspace.path.starts_with(&outer.path));
        if let Some((outer, _)) = inside {
            findings.push(Finding::warning(
                CHECK,
                format!("`{name}` lies inside of `{outer}`"),
                "a tool that was granted the outer one also sees the inner one",
            ));
        }
    }
    findings
}

fn tools(config: &Config) -> Finding {
    const CHECK: &str = "manifests";
    let shown = config.tools_dir.display();
    match std::fs::read_dir(&config.tools_dir) {
        Ok(entries) => {
            let manifests = entries.flatten().filter(|e| e.path().extension().is_some_and(|end| end == "toml")).count();
            Finding::well(CHECK, format!("{manifests} in `{shown}`"))
        }
        Err(error) => {
            Finding::warning(CHECK, format!("`{shown}`: {error}"), "make it; `toolkeep tools install` fills it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::ambient::Ambient;
    use crate::config::check as check_config;
    use crate::config::text::ConfigText;

    fn config(text: &str) -> Config {
        let text: ConfigText = toml::from_str(text).expect("toml");
        let home = [("HOME".to_owned(), "/home/someone".to_owned())].into_iter().collect();
        check_config(&text, None, &Ambient::fixed(0, 0, home)).expect("config")
    }

    #[test]
    fn a_shared_uid_and_solo_are_told_apart_from_a_sound_set_up() {
        let apart = config(
            "[[principal]]\nuid = 1001\ntenant = \"local\"\nuser = \"a\"\nagent = \"b\"\n\
             [[operator]]\nuid = 1000\nuser = \"o\"\ntenant = \"local\"\n",
        );
        assert_eq!((planes(&apart).grade, solo(&apart).grade), (Grade::Well, Grade::Well));
        let shared = config("[daemon]\nsolo = true\n");
        assert_eq!((planes(&shared).grade, solo(&shared).grade), (Grade::Warning, Grade::Warning));
        assert!(planes(&shared).hint.contains("can read the token"));
        let prod = config("[daemon]\nsolo = true\nenvironment = \"prod\"\n");
        assert_eq!(solo(&prod).grade, Grade::Problem);
    }
}
