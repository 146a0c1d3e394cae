//! Attack: tries to leave its workspace by every way that it knows, and says what each attempt gave.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

/// Ways out. `link`, `hard` and `loop` are prepared by the test: a link out, a second name of a file outside, a loop.
const PATHS: &[&str] = &[
    "..",
    "../",
    "../outside.txt",
    "../../../../../../etc/passwd",
    "sub/../../outside.txt",
    "./../outside.txt",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "inside.txt/",
    "inside.txt/.",
    "inside.txt/../../outside.txt",
    "link",
    "link/",
    "link/outside.txt",
    "hard",
    "loop",
    "loop/x",
    "\0",
    "inside.txt\0.png",
    "..\\outside.txt",
    "sub\\..\\..\\outside.txt",
    "C:\\outside.txt",
    "",
    ".//..//outside.txt",
    "sub/./../../outside.txt",
    "%2e%2e/outside.txt",
    "\u{ff0e}\u{ff0e}/outside.txt",
    "fifo",
    "/proc/self/environ",
    "/dev/null",
];

/// What to open for.
const WAYS: [(&str, OpenFlags, DescriptorFlags); 3] = [
    ("read", OpenFlags::empty(), DescriptorFlags::READ),
    ("create", OpenFlags::CREATE, DescriptorFlags::WRITE),
    ("truncate", OpenFlags::TRUNCATE, DescriptorFlags::WRITE),
];

fn report(root: &str, path: &str, what: &str, answer: Result<(), ErrorCode>) -> String {
    let answer = answer.map_or_else(|code| format!("{code:?}"), |()| "done".to_owned());
    format!("[{root:?},{:?},{what:?},{answer:?}]", path.escape_default().to_string())
}

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        let mut answers = Vec::new();
        for (root, name) in preopens::get_directories() {
            for path in PATHS {
                for (what, open, mode) in WAYS {
                    let answer = root.open_at(PathFlags::SYMLINK_FOLLOW, path, open, mode);
                    answers.push(report(&name, path, what, answer.map(drop)));
                    let answer = root.open_at(PathFlags::empty(), path, open, mode);
                    answers.push(report(&name, path, what, answer.map(drop)));
                }
                answers.push(report(&name, path, "stat", root.stat_at(PathFlags::SYMLINK_FOLLOW, path).map(drop)));
                answers.push(report(&name, path, "readlink", root.readlink_at(path).map(drop)));
                answers.push(report(&name, path, "mkdir", root.create_directory_at(path)));
                answers.push(report(&name, path, "rmdir", root.remove_directory_at(path)));
                answers.push(report(&name, path, "unlink", root.unlink_file_at(path)));
                answers.push(report(&name, path, "rename-from", root.rename_at(path, &root, "stolen")));
                answers.push(report(&name, path, "rename-to", root.rename_at("inside.txt", &root, path)));
                answers.push(report(&name, path, "link", root.link_at(PathFlags::empty(), path, &root, "linked")));
                answers.push(report(&name, path, "symlink", root.symlink_at(path, "pointer")));
            }
        }
        Ok(format!("[{}]", answers.join(",")))
    }
}

export!(Attack);
