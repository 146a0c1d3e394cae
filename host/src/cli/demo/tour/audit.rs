//! The steps about the audit: verified, vouched for, and one flipped bit of a copy found.

use super::super::stop::Stop;
use super::Tour;

/// What an entry of every ledger says: the bit that is flipped is in it.
const FLIPPED: &[u8] = br#""what":"start""#;

impl Tour<'_> {
    /// Verify the audit, keep a checkpoint, stop the daemon, and look at copies of the ledger without it.
    pub(super) fn audit(&mut self) -> Result<(), Stop> {
        self.run(
            "Every call, decision and commit above is in an audit: chained, a Merkle tree, signed checkpoints.",
            &["audit", "verify"],
            0,
        )?;
        self.run(
            "A checkpoint, to be kept where nobody of this machine can reach it. Public tools verify its signature.",
            &["audit", "checkpoints", "--make"],
            0,
        )?;
        self.daemon.stop();
        let ledger = self.world.root.join("state/ledger/ledger.sqlite");
        let folder = self.world.root.join("copy");
        let copy = folder.join("ledger.sqlite");
        std::fs::create_dir_all(&folder).map_err(Stop::file(&folder))?;
        let mut bytes = std::fs::read(&ledger).map_err(Stop::file(&ledger))?;
        std::fs::write(&copy, &bytes).map_err(Stop::file(&copy))?;
        let place = folder.display().to_string();
        let verify = ["audit", "verify", "--ledger", &place];
        self.run("The daemon was stopped. A copy of its ledger verifies without one.", &verify, 0)?;
        // Pages keep stale copies of rows that moved: the bit is flipped wherever the entry stands.
        let windows = bytes.windows(FLIPPED.len()).enumerate();
        let places: Vec<usize> = windows.filter(|(_, window)| *window == FLIPPED).map(|(at, _)| at).collect();
        for at in places {
            if let Some(byte) = bytes.get_mut(at + FLIPPED.len() - 2) {
                *byte ^= 1;
            }
        }
        std::fs::write(&copy, &bytes).map_err(Stop::file(&copy))?;
        self.run("One bit of one entry of the copy is flipped, and found.", &verify, 9)
    }
}
