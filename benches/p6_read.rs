//! P6: reading 10,000 small files and one large one through the stage, against the same guest on plain WASI.

use std::fs::{self, File};
use std::io::Write as _;

use serde_json::json;
use toolkeep_benches::client::request;
use toolkeep_benches::raw::Raw;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{World, component};
use toolkeep_benches::{median, micros, timed};

/// At most so many times the floor.
const PROMISE: f64 = 1.5;
const ROUNDS: usize = 3;
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 512;
const LARGE_BYTES: usize = 256 * 1024 * 1024;
const MANIFEST: &str = "tier = 0\n\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 120_000\n\n\
                        [[workspace]]\nname = \"data\"\naccess = \"read\"\n";

fn main() {
    let world = World::new();
    let wasm = component("reader");
    world.install("reader", &wasm, MANIFEST);
    for folder in ["small", "large"] {
        fs::create_dir(world.path("data").join(folder)).expect("a folder");
    }
    for number in 0..SMALL_FILES {
        let path = world.path("data/small").join(format!("file-{number:05}"));
        fs::write(path, vec![b'x'; SMALL_BYTES]).expect("a file");
    }
    let mut large = File::create(world.path("data/large/file")).expect("a file");
    let block = vec![b'y'; 1024 * 1024];
    (0..LARGE_BYTES / block.len()).for_each(|_| large.write_all(&block).expect("written"));
    drop(large);

    let _daemon = world.start();
    let mut client = world.connect().expect("connected");
    let raw = Raw::new(&wasm);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut measure = |folder: &str, expected: &str| {
        let input = json!({ "folder": folder });
        let line = request("calls.execute", "reader", &input);
        let input = input.to_string();
        let [mut ours, mut plain, mut inline] = [const { Vec::new() }; 3];
        for round in 0..=ROUNDS {
            let mut answer = String::new();
            let took = timed(|| answer = client.ask(&line).to_owned());
            assert!(answer.contains(expected) && answer.contains(r#""status":"ok""#), "{answer}");
            let floor = |here| {
                let started = std::time::Instant::now();
                let folder = (&*world.path("data"), "/data");
                let output = runtime.block_on(raw.call_with("read-all", &input, folder, here));
                assert!(output.contains(expected), "{output}");
                micros(started.elapsed()) / 1e3
            };
            let (elsewhere, here) = (floor(false), floor(true));
            // The first round fills the page cache.
            if round > 0 {
                ours.push(took / 1e3);
                plain.push(elsewhere);
                inline.push(here);
            }
        }
        (median(ours), median(plain), median(inline))
    };
    let (small, small_plain, small_inline) = measure("small", &format!(r#""files":{SMALL_FILES}"#));
    let (large, large_plain, large_inline) = measure("large", &format!(r#""bytes":{LARGE_BYTES}"#));
    let rows = [
        Row::at_most_times("P6a", "reading 10,000 files of 512 bytes", "ms", [small, small_plain], PROMISE),
        Row::at_most_times("P6b", "reading one file of 256 MiB", "ms", [large, large_plain], PROMISE),
    ];
    let note = format!(
        "WASI that reads in the calling thread: {small_inline:.1} ms ({:.2} ×) and {large_inline:.1} ms ({:.2} ×)",
        small / small_inline,
        large / large_inline
    );
    publish(&rows, &[note]);
}
