//! The tree against `ct-merkle`, an independent implementation that keeps everything in memory, and against every forgery of
//! one bit.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use sha2::Sha256;

use super::*;

/// A tree of entries `0..size`, with every perfect subtree that was made on the way.
fn grown(size: u64) -> (Frontier, BTreeMap<Perfect, Digest>) {
    let (mut frontier, mut made) = (Frontier::default(), BTreeMap::new());
    for number in 0..size {
        frontier.push(&entry(number), |place, hash| _ = made.insert(place, hash));
    }
    (frontier, made)
}

fn entry(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn of(made: &BTreeMap<Perfect, Digest>) -> impl FnMut(Perfect) -> Result<Digest, Infallible> {
    |place| Ok(made[&place])
}

fn oracle(size: u64) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    (0..size).for_each(|number| tree.push(entry(number).as_bytes().to_vec()));
    tree
}

/// The hashes of a proof of the oracle.
fn hashes(bytes: &[u8]) -> Vec<Digest> {
    bytes.chunks(32).map(|hash| Digest::from_bytes(hash.try_into().expect("32 bytes"))).collect()
}

#[test]
fn r40_known_roots_of_rfc_6962_are_found() {
    // The empty tree, and the leaf of the empty text: figures of RFC 6962 implementations since Certificate Transparency.
    assert_eq!(empty().to_hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(Frontier::default().root(), empty());
    let mut one = Frontier::default();
    one.push_leaf(Digest::of(&[0]), |_, _| {});
    assert_eq!(one.root().to_hex(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
}

#[test]
fn r40_every_root_and_every_proof_of_small_trees_is_that_of_an_independent_implementation() {
    for size in 1..=70 {
        let (frontier, made) = grown(size);
        let oracle = oracle(size);
        let root = Digest::from_bytes(oracle.root().as_bytes().to_owned().into());
        assert_eq!(frontier.root(), root, "{size}");
        assert_eq!(super::root(size, of(&made)), Ok(root), "{size}");
        let kept = peaks(size).into_iter().map(|peak| made[&peak]).collect();
        assert_eq!(Frontier::of(size, kept).as_ref(), Some(&frontier), "{size}");
        for index in 0..size {
            let proof = inclusion(index, size, of(&made)).expect("kept").expect("inside");
            let theirs = oracle.prove_inclusion(usize::try_from(index).expect("small"));
            assert_eq!(proof, hashes(theirs.as_bytes()), "{index} in {size}");
            assert!(includes((size, &root), index, &entry(index), &proof));
        }
        assert_eq!(inclusion(size, size, of(&made)), Ok(None));
        for old in 1..=size {
            let proof = consistency(old, size, of(&made)).expect("kept").expect("inside");
            let added = usize::try_from(size - old).expect("small");
            if added > 0 {
                assert_eq!(proof, hashes(oracle.prove_consistency(added).as_bytes()), "{old} in {size}");
            }
            assert!(extends((old, &grown(old).0.root()), (size, &root), &proof), "{old} in {size}");
        }
        assert_eq!(consistency(0, size, of(&made)), Ok(None));
        assert_eq!(consistency(size + 1, size, of(&made)), Ok(None));
    }
}

fn flipped(digest: Digest, bit: usize) -> Digest {
    let mut bytes = *digest.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Digest::from_bytes(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn r40_larger_trees_agree_with_the_oracle_and_no_forged_proof_verifies(
        size in 2_u64..3_000, at in any::<u64>(), old in any::<u64>(), bit in 0_usize..256, which in any::<usize>(),
    ) {
        let (at, old) = (at % size, old % (size - 1) + 1);
        let (frontier, made) = grown(size);
        let oracle = oracle(size);
        let root = frontier.root();
        prop_assert_eq!(root, Digest::from_bytes(oracle.root().as_bytes().to_owned().into()));
        let proof = inclusion(at, size, of(&made)).expect("kept").expect("inside");
        let theirs = oracle.prove_inclusion(usize::try_from(at).expect("small"));
        prop_assert_eq!(&proof, &hashes(theirs.as_bytes()));
        prop_assert!(includes((size, &root), at, &entry(at), &proof));
        // Everything that is not as it was is refused.
        let mut forged = proof.clone();
        let place = which % forged.len();
        forged[place] = flipped(forged[place], bit);
        prop_assert!(!includes((size, &root), at, &entry(at), &forged));
        prop_assert!(!includes((size, &flipped(root, bit)), at, &entry(at), &proof));
        prop_assert!(!includes((size, &root), at, &flipped(entry(at), bit), &proof));
        prop_assert!(!includes((size, &root), (at + 1) % size, &entry(at), &proof));
        prop_assert!(!includes((size, &root), at, &entry(at), &proof[1..]));
        let longer: Vec<Digest> = proof.iter().copied().chain([root]).collect();
        prop_assert!(!includes((size, &root), at, &entry(at), &longer));

        let proof = consistency(old, size, of(&made)).expect("kept").expect("inside");
        let before = grown(old).0.root();
        prop_assert!(extends((old, &before), (size, &root), &proof));
        let added = usize::try_from(size - old).expect("small");
        prop_assert_eq!(&proof, &hashes(oracle.prove_consistency(added).as_bytes()));
        let mut forged = proof.clone();
        let place = which % forged.len();
        forged[place] = flipped(forged[place], bit);
        prop_assert!(!extends((old, &before), (size, &root), &forged));
        prop_assert!(!extends((old, &flipped(before, bit)), (size, &root), &proof));
        prop_assert!(!extends((old, &before), (size, &flipped(root, bit)), &proof));
        prop_assert!(!extends((old, &before), (size, &root), &proof[1..]));
    }
}
