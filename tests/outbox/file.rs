//! A file as a channel: whole lines with ids, whatever was there before.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use toolkeep_core::delivery::DeliveryState;

use super::world::World;

const CHANNEL: &str = "[log]\nkind = \"file\"\npath = \"out.jsonl\"";

fn lines(world: &World) -> Vec<Option<Value>> {
    let text = std::fs::read_to_string(world.scratch.path().join("out.jsonl")).expect("the file");
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).ok()).collect()
}

fn ids(world: &World) -> Vec<Option<String>> {
    let id = |line: Option<Value>| line.map(|line| line["id"].as_str().expect("an id").to_owned());
    lines(world).into_iter().map(id).collect()
}

#[tokio::test]
async fn each_message_is_one_line_with_its_id_in_a_private_file() {
    let world = World::new(CHANNEL);
    let life = world.live().await;
    let (one, two) = (life.send(world.message("log")), life.send(world.message("log")));
    life.until(one, DeliveryState::Delivered).await;
    life.until(two, DeliveryState::Delivered).await;
    assert_eq!(ids(&world), [Some(one.to_string()), Some(two.to_string())]);
    let line = lines(&world).remove(0).expect("JSON");
    assert_eq!(line["data"]["body"], "The books are closed.\n.\n");
    let mode = std::fs::metadata(world.scratch.path().join("out.jsonl")).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    life.end().await;
}

#[tokio::test]
async fn a_line_that_was_cut_off_costs_itself_alone() {
    let world = World::new(CHANNEL);
    world.scratch.put("out.jsonl", b"{\"id\": \"msg_");
    let life = world.live().await;
    let id = life.send(world.message("log"));
    life.until(id, DeliveryState::Delivered).await;
    assert_eq!(ids(&world), [None, Some(id.to_string())]);
    life.end().await;
}

#[tokio::test]
async fn t_f3_a_link_in_the_place_of_the_file_is_not_followed() {
    let world = World::new(CHANNEL);
    world.scratch.put("victim", b"mine\n");
    std::os::unix::fs::symlink(world.scratch.path().join("victim"), world.scratch.path().join("out.jsonl"))
        .expect("link");
    let life = world.live().await;
    let id = life.send(world.message("log"));
    life.until_failed(id, 1).await;
    assert_eq!(std::fs::read(world.scratch.path().join("victim")).expect("read"), b"mine\n");
    life.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_carried_in_base64() {
    let world = World::new(CHANNEL);
    let life = world.live().await;
    let mut message = world.message("log");
    message.message.body = [0xff_u8, 0].as_slice().into();
    message.message.media_type = "application/octet-stream".to_owned();
    let id = life.send(message);
    life.until(id, DeliveryState::Delivered).await;
    assert_eq!(lines(&world).remove(0).expect("JSON")["data"]["body_base64"], "/wA=");
    life.end().await;
}
