//! Mail to a real server: what arrives, and how each misbehaviour of a server ends.

use std::sync::Arc;
use std::time::Duration;

use toolkeep_core::delivery::DeliveryState;
use toolkeep_tests::support::mail_server::{MailServer, Manner};

use super::world::World;

fn mail(server: &MailServer, more: &str) -> World {
    World::new(&format!(
        "[mail]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nallow_private = true\n\
         from = \"toolkeep@example.com\"\nto = [\"ops@example.com\"]\n{more}",
        server.port()
    ))
}

#[tokio::test]
async fn a_message_arrives_as_mail_whose_id_is_that_of_the_delivery() {
    let server = MailServer::new(Manner::Takes);
    let world = mail(&server, "");
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let delivered = life.until(id, DeliveryState::Delivered).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert!(mail.from.starts_with("MAIL FROM:<toolkeep@example.com>"), "{}", mail.from);
    assert_eq!(mail.to, ["RCPT TO:<ann@example.com>"]);
    assert_eq!(mail.field("message-id"), [format!("<{id}@example.com>")]);
    assert_eq!(mail.field("subject"), ["Close of =?utf-8?b?TcOkcmNo?="]);
    assert_eq!(mail.field("date"), ["Tue, 14 Nov 2023 22:13:20 +0000"]);
    assert_eq!(mail.field("content-type"), ["text/plain; charset=utf-8"]);
    assert!(mail.text.ends_with("\r\n\r\nThe books are closed.\r\n.\r\n"), "{:?}", mail.text);
    assert_eq!(delivered.note.as_deref(), Some("250: 2.0.0 queued"));
    life.end().await;
}

#[tokio::test]
async fn a_message_without_receivers_goes_to_those_of_the_channel_and_a_slow_server_is_waited_for() {
    let server = MailServer::new(Manner::Slow(Duration::from_millis(50)));
    let world = mail(&server, "");
    let life = world.live().await;
    let mut message = world.message("mail");
    message.message.to.clear();
    let id = life.send(message);
    life.until(id, DeliveryState::Delivered).await;
    assert_eq!(server.mails()[0].to, ["RCPT TO:<ops@example.com>"]);
    life.end().await;
}

#[tokio::test]
async fn a_server_that_refuses_for_now_is_asked_again_and_one_that_refuses_for_good_is_not() {
    let server = MailServer::new(Manner::Answers("451 4.3.0 later, please"));
    let world = mail(&server, "");
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let failed = life.until_failed(id, 1).await;
    assert!(failed.note.expect("why").contains("later, please"));
    server.behave(Manner::Answers("550 5.1.1 nobody of that name"));
    life.wait_out(&world);
    let dead = life.until(id, DeliveryState::Dead).await;
    assert_eq!(dead.progress.attempts, 2);
    assert!(dead.note.expect("why").contains("nobody of that name"));
    assert!(server.mails().is_empty());
    life.end().await;
}

#[tokio::test]
async fn a_server_that_vanishes_after_the_message_gets_it_again_with_the_same_id() {
    let server = MailServer::new(Manner::VanishesAfterData);
    let world = mail(&server, "");
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    life.until_failed(id, 1).await;
    server.behave(Manner::Takes);
    life.wait_out(&world);
    life.until(id, DeliveryState::Delivered).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0], mails[1], "the same letter, byte for byte");
    life.end().await;
}

#[tokio::test]
async fn a_channel_logs_in_with_its_secret_and_says_it_nowhere_else() {
    let server = MailServer::new(Manner::WantsLogin);
    let world = mail(&server, "user = \"toolkeep\"\nsecret = \"password\"");
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let delivered = life.until(id, DeliveryState::Delivered).await;
    let login = super::receiver::base64(b"\0toolkeep\0open sesame");
    assert!(server.commands().contains(&format!("AUTH PLAIN {login}")), "{:?}", server.commands());
    assert!(!format!("{delivered:?}").contains("sesame"));
    life.end().await;
}

#[tokio::test]
async fn t_n6_no_head_can_be_smuggled_through_subject_or_receivers() {
    let server = MailServer::new(Manner::Takes);
    let world = mail(&server, "");
    let life = world.live().await;
    let bad = [
        ("Hi\r\nBcc: eve@example.net", "ann@example.com"),
        ("Hi\nBcc: eve@example.net", "ann@example.com"),
        ("Hi", "ann@example.com\r\nRCPT TO:<eve@example.net>"),
        ("Hi", "ann@example.com>\u{2028}RCPT TO:<eve@example.net"),
        ("Hi", "ann@example.com> SIZE=1"),
        ("Hi", "ann@example.com, eve@example.net"),
        ("Hi", "Ann <ann@example.com>"),
        ("Hi", "\"ann> x\"@example.com"),
        ("Hi", "ann"),
        ("Hi", "@example.com"),
    ];
    for (subject, to) in bad {
        let mut message = world.message("mail");
        message.message.subject = subject.to_owned();
        message.message.to = vec![to.to_owned()];
        let id = life.send(message);
        life.until(id, DeliveryState::Dead).await;
    }
    assert_eq!((server.connections(), server.mails().len()), (0, 0), "found before there is a connection");
    life.end().await;
}

#[tokio::test]
async fn t_n6_a_body_cannot_end_its_message_early() {
    let server = MailServer::new(Manner::Takes);
    let world = mail(&server, "");
    let life = world.live().await;
    let mut message = world.message("mail");
    let evil =
        "one\r\n.\r\nMAIL FROM:<eve@example.net>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\n\n.\nMAIL\r.\rend\n.\r\n";
    message.message.body = Arc::from(evil.as_bytes());
    let id = life.send(message);
    life.until(id, DeliveryState::Delivered).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].text.contains("\r\n.\r\nMAIL FROM:<eve@example.net>"), "it is text: {:?}", mails[0].text);
    assert!(!server.commands().iter().any(|line| line.contains("eve")));
    life.end().await;
}

#[tokio::test]
async fn a_password_is_not_sent_and_nothing_is_said_without_the_tls_that_was_asked_for() {
    let server = MailServer::new(Manner::WantsLogin);
    let world = World::new(&format!(
        "[mail]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"starttls\"\nallow_private = true\n\
         from = \"toolkeep@example.com\"\nuser = \"toolkeep\"\nsecret = \"password\"",
        server.port()
    ));
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let failed = life.until_failed(id, 1).await;
    assert!(failed.note.expect("why").contains("STARTTLS"));
    assert!(server.commands().iter().all(|line| line.starts_with("EHLO")), "{:?}", server.commands());
    life.end().await;
}

#[tokio::test]
async fn r48_t_s1_a_server_that_repeats_the_login_does_not_bring_the_password_into_the_ledger() {
    let server = MailServer::new(Manner::Tells);
    let world = mail(&server, "user = \"toolkeep\"\nsecret = \"password\"");
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let note = life.until(id, DeliveryState::Dead).await.note.expect("why");
    assert!(server.commands().iter().any(|line| line.starts_with("AUTH PLAIN")), "{:?}", server.commands());
    assert_eq!(note.matches("[secret password]").count(), 2, "{note}");
    // "open sesame", as it is and as it lies in the login.
    assert!(!note.contains("sesame") && !note.contains("b3BlbiBzZXNhbWU"), "{note}");
    life.end().await;
}
