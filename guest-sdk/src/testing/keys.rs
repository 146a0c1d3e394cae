//! What a call changed in buckets, found by comparing before and after.

use crate::declaration::EffectKind;
use crate::testing::Effect;
use crate::testing::running::{Buckets, Running};

/// The changed keys, by bucket and key. A key that was only added to is an addition, whatever its value.
pub(super) fn effects(before: &Buckets, running: &Running) -> Vec<Effect> {
    let value =
        |buckets: &Buckets, bucket: &str, key: &str| buckets.get(bucket).and_then(|keys| keys.get(key).cloned());
    let changed = running.keys_changed.iter().filter_map(|((bucket, key), adds_only)| {
        let (before, after) = (value(before, bucket, key), value(&running.buckets, bucket, key));
        if before == after {
            return None;
        }
        let kind = match &after {
            None => EffectKind::KvDelete,
            Some(_) if *adds_only => EffectKind::KvAdd,
            Some(_) => EffectKind::KvSet,
        };
        Some(Effect { kind, workspace: bucket.clone(), path: key.clone(), before, after })
    });
    changed.collect()
}
