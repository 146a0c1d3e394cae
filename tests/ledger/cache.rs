//! The cache of compiled components: nothing is loaded that this daemon did not put there.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use toolkeep::ambient::Ambient;
use toolkeep::artifacts::{Artifacts, REFUSED_MAX};
use toolkeep_core::digest::Digest;
use toolkeep_sandbox::pool::Native;

use super::fixture::Place;

const ENGINE: &str = "engine 48.0.8 fuel epochs";

fn open(place: &Place) -> Artifacts {
    Artifacts::open(place.path(), &Ambient::fixed(1, 1, BTreeMap::new())).expect("cache")
}

fn code(cache: &Artifacts, component: &Digest, engine: &str) -> Option<Vec<u8>> {
    cache.get(component, engine).map(|native| native.bytes().expect("bytes").to_vec())
}

fn only_file(place: &Place, ending: &str) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(place.path())
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_compiled_component_is_found_again_by_component_and_engine_only() {
    let place = Place::new("cache");
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    open(&place).put(&one, ENGINE, b"native code").expect("put");
    let again = open(&place);
    assert_eq!(code(&again, &one, ENGINE).as_deref(), Some(b"native code".as_slice()));
    assert_eq!(code(&again, &two, ENGINE), None);
    assert_eq!(code(&again, &one, "engine 48.0.9 fuel epochs"), None);
    again.put(&one, ENGINE, b"newer code").expect("put");
    assert_eq!(code(&again, &one, ENGINE).as_deref(), Some(b"newer code".as_slice()));
    for entry in std::fs::read_dir(place.path()).expect("directory") {
        let path = entry.expect("entry").path();
        assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn t_r10_every_flipped_bit_of_a_cached_component_is_refused() {
    let place = Place::new("flip");
    let cache = open(&place);
    let component = Digest::of(b"one");
    cache.put(&component, ENGINE, b"native code").expect("put");
    let path = only_file(&place, "cwasm");
    let genuine = std::fs::read(&path).expect("file");
    for bit in 0..genuine.len() * 8 {
        let mut changed = genuine.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &changed).expect("written");
        assert_eq!(code(&cache, &component, ENGINE), None, "bit {bit}");
        assert!(!path.exists(), "what is not genuine is removed");
    }
    for length in 0..genuine.len() {
        std::fs::write(&path, &genuine[..length]).expect("written");
        assert_eq!(code(&cache, &component, ENGINE), None, "{length} bytes");
    }
    let mut longer = genuine.clone();
    longer.push(0);
    std::fs::write(&path, &longer).expect("written");
    assert_eq!(code(&cache, &component, ENGINE), None);
    std::fs::write(&path, &genuine).expect("written");
    assert_eq!(code(&cache, &component, ENGINE).as_deref(), Some(b"native code".as_slice()));
}

#[test]
fn t_r10_every_part_of_a_large_component_is_checked_and_so_is_their_order() {
    let place = Place::new("parts");
    let cache = open(&place);
    let component = Digest::of(b"large");
    let part = 256 * 1024;
    let content: Vec<u8> = (0..=250_u8).cycle().take(3 * part + 5).collect();
    cache.put(&component, ENGINE, &content).expect("put");
    let path = only_file(&place, "cwasm");
    let genuine = std::fs::read(&path).expect("file");
    assert_eq!(code(&cache, &component, ENGINE).as_deref(), Some(content.as_slice()));
    let head = genuine.len() - content.len();
    for at in [0, part - 1, part, 2 * part + 7, 3 * part, 3 * part + 4] {
        let mut changed = genuine.clone();
        changed[head + at] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        assert_eq!(code(&cache, &component, ENGINE), None, "byte {at}");
    }
    let mut swapped = genuine[..head].to_vec();
    swapped.extend_from_slice(&content[part..2 * part]);
    swapped.extend_from_slice(&content[..part]);
    swapped.extend_from_slice(&content[2 * part..]);
    std::fs::write(&path, &swapped).expect("written");
    assert_eq!(code(&cache, &component, ENGINE), None, "two parts changed places");
}

#[test]
fn t_r10_what_was_checked_cannot_be_changed_any_more() {
    let place = Place::new("sealed");
    let cache = open(&place);
    let component = Digest::of(b"one");
    cache.put(&component, ENGINE, b"native code").expect("put");
    let native = cache.get(&component, ENGINE).expect("there");
    std::fs::write(only_file(&place, "cwasm"), b"something else altogether").expect("written");
    assert_eq!(&*native.bytes().expect("bytes"), b"native code");
    let Native::Sealed(file) = &native else { panic!("this kernel has anonymous files: {native:?}") };
    std::io::Write::write(&mut &**file, b"x").expect_err("sealed against writing");
    file.set_len(1).expect_err("sealed against cutting");
    assert!(
        Native::Sealed(std::sync::Arc::new(std::fs::File::open("/proc/self/exe").expect("a file"))).bytes().is_err()
    );
}

#[test]
fn components_that_were_looked_at_are_remembered_for_the_same_rules_only() {
    let place = Place::new("screened");
    let components = [Digest::of(b"one"), Digest::of(b"two")].into();
    assert!(open(&place).screened("rules 1").is_empty());
    open(&place).keep_screened("rules 1", &components);
    assert_eq!(open(&place).screened("rules 1"), components);
    assert!(open(&place).screened("rules 2").is_empty());
    let path = only_file(&place, "screened");
    let mut changed = std::fs::read(&path).expect("file");
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(&path, &changed).expect("written");
    assert!(open(&place).screened("rules 1").is_empty(), "somebody else added a component");
}

#[test]
fn t_r10_a_genuine_file_under_another_name_kind_or_key_is_refused() {
    let place = Place::new("moved");
    let cache = open(&place);
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    cache.put(&one, ENGINE, b"first").expect("put");
    let first = only_file(&place, "cwasm");
    let genuine = std::fs::read(&first).expect("file");
    std::fs::remove_file(&first).expect("removed");
    cache.put(&two, ENGINE, b"second").expect("put");
    std::fs::write(only_file(&place, "cwasm"), &genuine).expect("written");
    assert_eq!(code(&cache, &two, ENGINE), None, "the code of another component");
    cache.refuse(&one, ENGINE, "", "native code in a reason");
    let reason = std::fs::read(only_file(&place, "refused")).expect("file");
    std::fs::write(&first, reason).expect("written");
    assert_eq!(code(&cache, &one, ENGINE), None, "a reason is not code");
    std::fs::write(&first, &genuine).expect("written");
    assert!(cache.get(&one, ENGINE).is_some());
    let key = place.path().join("mac.key");
    std::fs::write(&key, [9; 32]).expect("written");
    assert_eq!(code(&open(&place), &one, ENGINE), None, "made under another key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("mode");
    assert!(Artifacts::open(place.path(), &Ambient::real()).is_err(), "a key that others can read");
}

#[test]
fn a_refused_component_stays_refused_for_its_engine_and_its_limits() {
    let place = Place::new("refused");
    let component = Digest::of(b"bomb");
    open(&place).refuse(&component, ENGINE, "cpu 10", "took too long");
    let again = open(&place);
    assert_eq!(again.refused(&component, ENGINE, "cpu 10").as_deref(), Some("took too long"));
    assert_eq!(again.refused(&component, ENGINE, "cpu 20"), None, "higher limits are worth another try");
    assert_eq!(again.refused(&component, "another engine", "cpu 10"), None);
    assert_eq!(again.refused(&Digest::of(b"other"), ENGINE, "cpu 10"), None);
}

#[test]
fn t_r9_refused_components_are_remembered_up_to_n_and_the_oldest_goes() {
    let place = Place::new("flood");
    let cache = open(&place);
    cache.put(&Digest::of(b"kept"), ENGINE, b"native code").expect("put");
    for n in 0..=REFUSED_MAX {
        cache.refuse(&Digest::of(&n.to_be_bytes()), ENGINE, "", "bomb");
    }
    let refused = std::fs::read_dir(place.path())
        .expect("directory")
        .filter(|entry| entry.as_ref().expect("entry").path().extension().is_some_and(|found| found == "refused"));
    assert_eq!(refused.count(), REFUSED_MAX);
    assert!(cache.refused(&Digest::of(&REFUSED_MAX.to_be_bytes()), ENGINE, "").is_some(), "the newest is there");
    assert!(cache.get(&Digest::of(b"kept"), ENGINE).is_some(), "and no compiled component went for them");
}
