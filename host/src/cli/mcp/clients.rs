//! What MCP clients want in their configuration, and where.
//!
//! Each wants the same facts in another form. A token is never printed: clients take it from the environment, or ask for it.

use serde_json::{Value, json};

/// The variable that clients take a token from.
const TOKEN: &str = "TOOLKEEP_TOKEN";

/// A client whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Client {
    /// Claude Code and Claude Desktop.
    Claude,
    /// Codex.
    Codex,
    /// Visual Studio Code.
    Vscode,
    /// Cursor.
    Cursor,
}

/// What to put where.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) text: String,
    /// For the person: which file, and what else.
    pub(super) hint: &'static str,
}

impl Client {
    /// A client that starts a program.
    pub(super) fn by_command(self, program: &str, arguments: &[String]) -> Place {
        let server = json!({"type": "stdio", "command": program, "args": arguments});
        match self {
            Self::Claude => Place {
                text: servers("mcpServers", server),
                hint: "for `.mcp.json` of a project, or `claude mcp add-json toolkeep '<the inner object>'`; Claude Desktop \
                       wants it in `claude_desktop_config.json`",
            },
            Self::Cursor => Place {
                text: servers("mcpServers", server),
                hint: "for `.cursor/mcp.json` of a project, or `~/.cursor/mcp.json`",
            },
            Self::Vscode => Place {
                text: servers("servers", server),
                hint: "for `.vscode/mcp.json` of a workspace, or the profile's `mcp.json`",
            },
            Self::Codex => Place {
                // Strings and lists of strings are spelled alike in JSON and TOML.
                text: format!(
                    "[mcp_servers.toolkeep]\ncommand = {}\nargs = {}\nenv_vars = [\"{TOKEN}\"]\n",
                    json!(program),
                    json!(arguments)
                ),
                hint: "for `~/.codex/config.toml`",
            },
        }
    }

    /// A client that connects by HTTP.
    pub(super) fn by_http(self, url: &str) -> Place {
        let bearer = |token: &str| json!({"Authorization": format!("Bearer {token}")});
        let server = |token: &str| json!({"type": "http", "url": url, "headers": bearer(token)});
        match self {
            Self::Claude => Place {
                text: servers("mcpServers", server("${TOOLKEEP_TOKEN}")),
                hint: "for `.mcp.json` of a project; set TOOLKEEP_TOKEN to what `toolkeep tokens mint` gave",
            },
            Self::Cursor => Place {
                // It tells a server that it connects to by the address.
                text: servers("mcpServers", json!({"url": url, "headers": bearer("${env:TOOLKEEP_TOKEN}")})),
                hint: "for `.cursor/mcp.json`; set TOOLKEEP_TOKEN to what `toolkeep tokens mint` gave",
            },
            Self::Vscode => {
                let input = json!({"type": "promptString", "id": "toolkeep_token", "password": true,
                    "description": "Token of Toolkeep, from `toolkeep tokens mint`"});
                let whole = json!({"inputs": [input], "servers": {"toolkeep": server("${input:toolkeep_token}")}});
                Place { text: pretty(&whole), hint: "for `.vscode/mcp.json`; the editor asks for the token once" }
            }
            Self::Codex => Place {
                text: format!("[mcp_servers.toolkeep]\nurl = {}\nbearer_token_env_var = \"{TOKEN}\"\n", json!(url)),
                hint: "for `~/.codex/config.toml`; set TOOLKEEP_TOKEN to what `toolkeep tokens mint` gave",
            },
        }
    }
}

fn servers(key: &str, server: Value) -> String {
    let mut whole = json!({key: {}});
    if let Some(Value::Object(servers)) = whole.get_mut(key) {
        servers.insert("toolkeep".to_owned(), server);
    }
    pretty(&whole)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(client: Client, text: &str) -> Value {
        match client {
            Client::Codex => serde_json::to_value(toml::from_str::<toml::Value>(text).expect("TOML")).expect("a value"),
            _ => serde_json::from_str(text).expect("JSON"),
        }
    }

    #[test]
    fn r51_what_is_printed_is_the_whole_of_what_each_client_documents() {
        let (program, url) = ("/opt/tool keep", "http://127.0.0.1:9464/mcp");
        let arguments = ["--config".to_owned(), "/a \"b\"/c.toml".to_owned(), "mcp".to_owned()];
        let started = json!({"type": "stdio", "command": program, "args": arguments});
        let asked = |token: &str| json!({"Authorization": format!("Bearer {token}")});
        let by_type = |token: &str| json!({"type": "http", "url": url, "headers": asked(token)});
        let input = json!({"type": "promptString", "id": "toolkeep_token", "password": true,
            "description": "Token of Toolkeep, from `toolkeep tokens mint`"});
        for (client, by_command, by_http) in [
            (
                Client::Claude,
                json!({"mcpServers": {"toolkeep": started}}),
                json!({"mcpServers": {"toolkeep": by_type("${TOOLKEEP_TOKEN}")}}),
            ),
            (
                Client::Codex,
                json!({"mcp_servers": {"toolkeep": {"command": program, "args": arguments, "env_vars": [TOKEN]}}}),
                json!({"mcp_servers": {"toolkeep": {"url": url, "bearer_token_env_var": TOKEN}}}),
            ),
            (
                Client::Vscode,
                json!({"servers": {"toolkeep": started}}),
                json!({"inputs": [input], "servers": {"toolkeep": by_type("${input:toolkeep_token}")}}),
            ),
            (
                Client::Cursor,
                json!({"mcpServers": {"toolkeep": started}}),
                json!({"mcpServers": {"toolkeep": {"url": url, "headers": asked("${env:TOOLKEEP_TOKEN}")}}}),
            ),
        ] {
            assert_eq!(read(client, &client.by_command(program, &arguments).text), by_command, "{client:?}");
            assert_eq!(read(client, &client.by_http(url).text), by_http, "{client:?}");
        }
    }
}
