//! Randomness that follows from the seed of the order: the same seed gives the same bytes, in every process.
//!
//! SHA-256 in counter mode, one stream for each interface. Whoever knows the recording knows the bytes, so they are not
//! recorded. What a call may draw in all is limited, because the host makes every byte.

use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::fault::{Fault, Stop};
use crate::state::State;

const DOMAIN: &str = "toolkeep.random.v1";

/// The generators of one execution.
#[derive(Debug)]
pub(crate) struct Random {
    seed: [u8; DIGEST_BYTES],
    left: u64,
    blocks: u64,
}

impl Random {
    pub(crate) const fn new(seed: [u8; DIGEST_BYTES], bytes_max: u64) -> Self {
        Self { seed, left: bytes_max, blocks: 0 }
    }

    fn draw(&mut self, stream: &str, length: u64) -> Result<Vec<u8>, Stop> {
        let refused = || Stop(Fault::Memory { what: "random bytes" });
        self.left = self.left.checked_sub(length).ok_or_else(refused)?;
        let length = usize::try_from(length).map_err(|_| refused())?;
        let mut bytes = Vec::with_capacity(length + DIGEST_BYTES);
        while bytes.len() < length {
            bytes.extend_from_slice(self.block(stream).as_bytes());
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn number(&mut self, stream: &str) -> Result<u64, Stop> {
        let mut number = [0; 8];
        number.copy_from_slice(&self.draw(stream, 8)?);
        Ok(u64::from_le_bytes(number))
    }

    fn block(&mut self, stream: &str) -> Digest {
        self.blocks = self.blocks.wrapping_add(1);
        Digest::of_parts(DOMAIN, &[stream.as_bytes(), &self.seed, &self.blocks.to_be_bytes()])
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.recorder.done("wasi:random/random#get-random-bytes", length.to_string());
        Ok(self.random.draw("secure", length)?)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.recorder.done("wasi:random/random#get-random-u64", "");
        Ok(self.random.number("secure")?)
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.recorder.done("wasi:random/insecure#get-insecure-random-bytes", length.to_string());
        Ok(self.random.draw("insecure", length)?)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.recorder.done("wasi:random/insecure#get-insecure-random-u64", "");
        Ok(self.random.number("insecure")?)
    }
}

impl insecure_seed::Host for State {
    /// Two words that depend on the seed alone, however often they are asked for.
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.recorder.done("wasi:random/insecure-seed#insecure-seed", "");
        let mut own = Random::new(self.random.seed, 16);
        Ok((own.number("insecure-seed")?, own.number("insecure-seed")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_the_same_bytes_and_another_gives_others() {
        let draw = |seed| Random::new([seed; 32], 1000).draw("secure", 100).expect("within the limit");
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut other = Random::new([1; 32], 1000);
        assert_ne!(other.draw("insecure", 100).expect("within the limit"), draw(1));
        assert_ne!(
            other.draw("insecure", 100).expect("within"),
            Random::new([1; 32], 100).draw("insecure", 100).expect("within")
        );
    }

    #[test]
    fn r04_random_bytes_hold_at_n_and_are_refused_at_n_plus_1() {
        let mut random = Random::new([0; 32], 10);
        assert_eq!(random.draw("secure", 10).expect("n").len(), 10);
        assert!(matches!(random.draw("secure", 1), Err(Stop(Fault::Memory { what: "random bytes" }))));
        assert!(Random::new([0; 32], 10).draw("secure", u64::MAX).is_err());
    }
}
