//! Random calls in one transaction against the same operations run natively at once (R08).
//!
//! Each call is a stage of its own over the layer of the calls before it, as the sandbox makes it; some of the calls fail and
//! are dropped. What the union applies must be what the operations of the good calls do to a plain directory, and a world
//! in which somebody changed what a call looked at must be refused as a whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use toolkeep::commit::files::{self, CommitError, Roots, Witnessed};
use toolkeep::transaction::{Layer, Room, Step, TRANSACTION_TOOL};
use toolkeep_core::digest::Digest;
use toolkeep_core::plan::{PlanBody, PlanStep};
use toolkeep_core::principal::Principal;
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::stage::{Content, Staged};
use toolkeep_sandbox::workspace::WorkspaceRoot;

use super::applier::{apply, check_read_set};
use super::operation::{Native, Operation, Staging};
use super::property::{build, operation, start};
use super::world::{NOW_NS, World, contents, tree};

/// Enough for every pair of operations to meet across calls, few enough for some seconds.
const CASES: u32 = 120;
/// Most calls of one transaction.
const CALLS_MAX: usize = 6;
/// Longest sequence of one call.
const OPERATIONS_MAX: usize = 12;

/// A transaction while it is made: what its calls staged, and the contents of that.
#[derive(Default)]
struct Transaction {
    layer: Layer,
    contents: BTreeMap<Digest, Content>,
}

fn fail(what: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(what.to_string())
}

impl Transaction {
    /// One call; `native` answers the same questions where it is given.
    fn call(&self, world: &World, operations: &[Operation], native: Option<&Path>) -> Result<Staged, TestCaseError> {
        let session = world.stage();
        let carried = session.stage.lay(&self.layer.effects, &self.contents).map_err(fail)?;
        assert_eq!(carried, [], "there is one workspace");
        let mut staging = Staging { session: &session, slots: [None, None, None] };
        let mut native = native.map(|root| Native { root, slots: [None, None, None] });
        for operation in operations {
            let answer = staging.run(operation);
            if let Some(native) = &mut native {
                let expect = native.run(operation);
                if answer != expect {
                    return Err(fail(format!("{operation:?}\nstage:  {answer:?}\nnative: {expect:?}")));
                }
            }
        }
        drop(staging);
        session.stage.seal().map_err(fail)
    }

    /// A call that ended well.
    fn stage(&mut self, staged: Staged) -> Result<(), TestCaseError> {
        let digest = Digest::of(b"");
        let step = PlanStep { tool: "t".parse().expect("name"), component: digest, manifest: digest, input: digest };
        let tier = Tier::Consequential;
        let since_ns = i64::try_from(NOW_NS).expect("a time");
        let step = Step { step, tier, staged: &staged, since_ns, seen: toolkeep::transaction::Exposed::default() };
        let next = self.layer.after(step, u64::MAX, Room::ORDINARY).map_err(|refusal| fail(refusal.message))?;
        // As the ledger keeps it between two calls.
        let (text, digest) = next.encode().map_err(|refusal| fail(refusal.message))?;
        self.layer = Layer::decode(&text, digest).map_err(|refusal| fail(refusal.message))?;
        self.contents.extend(staged.contents);
        let wanted = self.layer.contents();
        self.contents.retain(|digest, _| wanted.contains(digest));
        assert_eq!(self.contents.len(), wanted.len(), "every content is at hand");
        Ok(())
    }

    fn body(&self) -> PlanBody {
        let name = || "local".parse().expect("name");
        let principal =
            Principal { tenant: name(), user: "u".parse().expect("name"), agent: "a".parse().expect("name") };
        self.layer.clone().into_body(principal, TRANSACTION_TOOL.parse().expect("name"), Digest::of(b"policy"))
    }

    /// The check of a commit, over the world as it is now.
    fn check(&self, world: &World) -> Result<(), CommitError> {
        let name: toolkeep_core::id::WorkspaceName = "books".parse().expect("name");
        let root = WorkspaceRoot::open(name.clone(), &world.path).expect("root");
        let roots: Roots = [(name, Arc::new(root))].into_iter().collect();
        let since_ns = i64::try_from(NOW_NS).expect("a time");
        files::check(&self.body(), Witnessed { entries: &self.layer.witnesses, since_ns }, &roots)
    }
}

/// Operations of one call, and whether it ends well.
type Call = (Vec<Operation>, bool);

fn check(entries: &[(String, Option<usize>)], calls: &[Call]) -> Result<(), TestCaseError> {
    let (world, twin) = (World::new(), World::new());
    build(&world, entries);
    build(&twin, entries);
    let before = tree(&world.path);
    let mut transaction = Transaction::default();
    for (operations, good) in calls {
        let staged = transaction.call(&world, operations, good.then_some(&twin.path))?;
        if *good {
            transaction.stage(staged)?;
        }
    }
    if tree(&world.path) != before {
        return Err(fail("staging changed the workspace"));
    }
    check_read_set(&world.path, &transaction.layer.read_set);
    transaction.check(&world).map_err(|error| fail(format!("{error}\n{:#?}", transaction.layer)))?;
    let union = Staged {
        effects: transaction.layer.effects.clone(),
        contents: transaction.contents.clone(),
        ..Staged::default()
    };
    apply(&world.path, &union);
    if contents(&world.path) != contents(&twin.path) {
        return Err(fail(format!("applied and native trees differ\neffects: {:#?}", union.effects)));
    }
    // Its effects are applied by now: the same union is for another world.
    if !union.effects.is_empty() && contents(&world.path) != contents_of(&before) && transaction.check(&world).is_ok() {
        return Err(fail("a world that moved on was not told from the one that the calls saw"));
    }
    Ok(())
}

/// A tree that was looked at before, without modes and times.
fn contents_of(tree: &BTreeMap<String, super::world::Entry>) -> BTreeMap<String, Option<Vec<u8>>> {
    let content = |entry: &super::world::Entry| match entry {
        super::world::Entry::File { content, .. } => Some(content.clone()),
        super::world::Entry::Directory | super::world::Entry::Other => None,
    };
    tree.iter().map(|(name, entry)| (name.clone(), content(entry))).collect()
}

#[test]
fn r08_random_calls_in_one_transaction_equal_the_same_operations_run_natively_at_once() {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let call = (vec(operation(), 1..OPERATIONS_MAX), (any::<u8>()).prop_map(|dice| dice % 5 != 0));
    let cases = (start(), vec(call, 1..CALLS_MAX));
    if let Err(error) = runner.run(&cases, |(start, calls)| check(&start, &calls)) {
        panic!("{error}");
    }
}
