//! The blob store: contents are what their names say, and what is needed is never collected.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use toolkeep::blobs::{BlobError, Blobs, GRACE_MS, INLINE_MAX_BYTES};
use toolkeep::ledger::{Discard, Durability, FileBlob};
use toolkeep_core::digest::Digest;
use toolkeep_sandbox::stage::Content;

use super::fixture::{Fixture, acme};

fn open(fixture: &Fixture) -> Blobs {
    Blobs::open(&folder(fixture), fixture.ledger.clone(), fixture.ambient.clone()).expect("blobs")
}

fn folder(fixture: &Fixture) -> PathBuf {
    fixture.place.path().join("blobs")
}

fn file(fixture: &Fixture, digest: &Digest) -> PathBuf {
    let name = digest.to_hex();
    folder(fixture).join(&name[..2]).join(name)
}

fn large(seed: u8) -> Vec<u8> {
    vec![seed; usize::try_from(INLINE_MAX_BYTES).expect("size") + 1]
}

fn contents(bytes: &[u8]) -> BTreeMap<Digest, Content> {
    BTreeMap::from([(Digest::of(bytes), Content::Memory(bytes.into()))])
}

/// A plan that writes a content, kept.
async fn keep(fixture: &Fixture, blobs: &Blobs, bytes: &[u8]) -> toolkeep::ledger::Proposal {
    let mut proposal = fixture.proposal(bytes);
    proposal.blobs = blobs.keep(contents(bytes)).await.expect("kept");
    fixture.ledger.propose(proposal.clone(), Durability::Lazy).await.expect("proposed");
    proposal
}

#[tokio::test]
async fn contents_of_n_bytes_are_rows_and_of_n_plus_1_are_private_files() {
    let fixture = Fixture::new("blob-sizes").await;
    let blobs = open(&fixture);
    for size in [0, 1, INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1, INLINE_MAX_BYTES * 3] {
        let bytes = vec![7; usize::try_from(size).expect("size")];
        let digest = Digest::of(&bytes);
        keep(&fixture, &blobs, &bytes).await;
        assert_eq!(file(&fixture, &digest).exists(), size > INLINE_MAX_BYTES, "{size}");
        assert_eq!(blobs.read(&digest).await.expect("read"), Some(bytes), "{size}");
    }
    let path = file(&fixture, &Digest::of(&large(7)));
    assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    assert_eq!(blobs.read(&Digest::of(b"unknown")).await.expect("read"), None);
}

#[tokio::test]
async fn a_content_that_is_not_what_its_digest_says_is_neither_taken_nor_served() {
    let fixture = Fixture::new("blob-wrong").await;
    let blobs = open(&fixture);
    let (digest, bytes) = (Digest::of(&large(1)), large(1));
    let size = bytes.len() as u64;
    for (size, wrong) in [(size, large(2)), (size + 1, bytes.clone()), (size - 1, bytes.clone()), (size, Vec::new())] {
        let refused = blobs.put(&digest, size, &mut wrong.as_slice()).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(!file(&fixture, &digest).exists());
    let left: Vec<_> = walk(&folder(&fixture));
    assert!(left.is_empty(), "no residue: {left:?}");
    keep(&fixture, &blobs, &bytes).await;
    let path = file(&fixture, &digest);
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        assert!(matches!(blobs.read(&digest).await, Err(BlobError::Damaged(found)) if found == digest), "{at}");
    }
    std::fs::write(&path, &bytes[1..]).expect("written");
    assert!(matches!(blobs.read(&digest).await, Err(BlobError::Damaged(_))));
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(blobs.read(&digest).await, Err(BlobError::Missing(_))));
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_content_is_collected_when_its_plan_is_gone_and_not_before() {
    let fixture = Fixture::new("blob-collect").await;
    let blobs = open(&fixture);
    let proposal = keep(&fixture, &blobs, &large(1)).await;
    let digest = Digest::of(&large(1));
    fixture.ambient.advance(Duration::from_millis(GRACE_MS));
    assert_eq!(blobs.collect().await.expect("collected"), 0, "a plan needs it");
    fixture.ledger.discard(&acme(), proposal.plan.id(), Discard::Dropped).await.expect("discarded");
    assert_eq!(blobs.collect().await.expect("collected"), 1);
    assert!(!file(&fixture, &digest).exists());
    assert!(blobs.read(&digest).await.expect("read").is_none());
    assert_eq!(blobs.collect().await.expect("collected"), 0);
}

#[tokio::test]
async fn a_content_that_was_just_put_is_left_alone_until_the_grace_is_over() {
    let fixture = Fixture::new("blob-grace").await;
    let blobs = open(&fixture);
    let digest = Digest::of(&large(1));
    blobs.put(&digest, large(1).len() as u64, &mut large(1).as_slice()).expect("put");
    fixture.ambient.advance(Duration::from_millis(GRACE_MS - 1));
    assert_eq!(blobs.collect().await.expect("collected"), 0);
    assert!(file(&fixture, &digest).exists());
    fixture.ambient.advance(Duration::from_millis(1));
    assert_eq!(blobs.collect().await.expect("collected"), 1, "a crash came between putting and pinning");
    assert!(!file(&fixture, &digest).exists());
}

#[tokio::test]
async fn what_a_crash_left_behind_is_swept_and_the_rest_stays() {
    let fixture = Fixture::new("blob-sweep").await;
    let blobs = open(&fixture);
    keep(&fixture, &blobs, &large(1)).await;
    let digest = Digest::of(&large(1));
    let temporary = file(&fixture, &digest).with_file_name(".tmp-0123");
    let spooled = folder(&fixture).join("spool").join("spool-1-2");
    for path in [&temporary, &spooled] {
        std::fs::write(path, b"half").expect("written");
    }
    let blobs = open(&fixture);
    assert!(!temporary.exists() && !spooled.exists());
    assert_eq!(blobs.read(&digest).await.expect("read"), Some(large(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collecting_beside_proposals_never_takes_a_content_that_a_plan_needs() {
    let fixture = Arc::new(Fixture::new("blob-race").await);
    let blobs = open(&fixture);
    let stop = Arc::new(AtomicBool::new(false));
    let collector = {
        let (fixture, blobs, stop) = (Arc::clone(&fixture), blobs.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                // Nothing is protected by its age: only by the lock and by its pin.
                fixture.ambient.advance(Duration::from_millis(1));
                removed += blobs.collect().await.expect("collected");
            }
            removed
        })
    };
    // The same few contents are kept and dropped again and again, so that every proposal meets a collection of its content.
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..4_u8 {
        let (fixture, blobs) = (Arc::clone(&fixture), blobs.clone());
        tasks.spawn(async move {
            for round in 0..25_u8 {
                let bytes = if round % 2 == 0 { large(worker % 2) } else { vec![worker % 2; 10] };
                let digest = Digest::of(&bytes);
                let proposal = keep(&fixture, &blobs, &bytes).await;
                assert_eq!(blobs.read(&digest).await.expect("read").as_deref(), Some(bytes.as_slice()));
                fixture.ledger.discard(&acme(), proposal.plan.id(), Discard::Dropped).await.expect("discarded");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("task");
    }
    stop.store(true, Ordering::Relaxed);
    collector.await.expect("collector");
}

#[tokio::test]
async fn contents_that_are_kept_can_be_pinned_by_another_plan() {
    let fixture = Fixture::new("blob-pin").await;
    let blobs = open(&fixture);
    let first = keep(&fixture, &blobs, &large(1)).await;
    keep(&fixture, &blobs, b"small").await;
    let digests = [Digest::of(&large(1)), Digest::of(b"small")];
    let set = blobs.pin(&digests).await.expect("pinned");
    assert_eq!(set.files, [FileBlob { digest: digests[0], size: large(1).len() as u64 }]);
    assert_eq!((set.inline.len(), &*set.inline[0].content), (1, b"small".as_slice()));
    let mut second = fixture.proposal(b"y");
    second.blobs = set;
    fixture.ledger.propose(second, Durability::Lazy).await.expect("proposed");
    fixture.ledger.discard(&acme(), first.plan.id(), Discard::Dropped).await.expect("discarded");
    fixture.ambient.advance(Duration::from_millis(GRACE_MS));
    assert_eq!(blobs.collect().await.expect("collected"), 0, "the second plan needs it");
    let missing = blobs.pin(&[Digest::of(b"unknown")]).await;
    assert!(matches!(missing, Err(BlobError::Missing(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_is_read_from_a_thread_that_blocks() {
    let fixture = Fixture::new("blob-block").await;
    let blobs = open(&fixture);
    keep(&fixture, &blobs, &large(1)).await;
    let read = tokio::task::spawn_blocking(move || blobs.content_blocking(&Digest::of(&large(1))));
    let content = read.await.expect("thread").expect("read").expect("there");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut content.reader(), &mut bytes).expect("read");
    assert_eq!(bytes, large(1));
}
