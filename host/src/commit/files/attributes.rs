//! What a file has besides content and mode, carried over when its content is replaced by another inode.
//!
//! Owner, group, access ACL and `user.*` attributes stay those of the file that is replaced; an ACL that the new inode
//! inherited from its directory is taken off if the old file had none. Nothing that gives a program rights is carried:
//! no set-id bits, no `security.capability`. What cannot be carried is refused, never dropped silently.

use std::fs::File;

use rustix::fs::{Gid, Uid, XattrFlags};
use rustix::io::Errno;

use crate::commit::files::tree::{Found, retry};

const ACL: &str = "system.posix_acl_access";
const USER: &str = "user.";
/// Longest value of one attribute in bytes (`XATTR_SIZE_MAX` of Linux).
const VALUE_MAX_BYTES: usize = 64 * 1024;

/// Make `new` belong to whom `old` belongs and carry what `old` carries. The mode is set afterwards.
pub(super) fn carry(old: &File, new: &File) -> Result<(), Errno> {
    own(new, Found::of(old)?.owner)?;
    let kept = names(old)?;
    for name in names(new)?.iter().filter(|name| !kept.contains(name)) {
        match retry(|| rustix::fs::fremovexattr(new, name.as_str())) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    for name in &kept {
        let mut value = vec![0_u8; VALUE_MAX_BYTES];
        let length = retry(|| rustix::fs::fgetxattr(old, name.as_str(), value.as_mut_slice()))?;
        value.truncate(length);
        retry(|| rustix::fs::fsetxattr(new, name.as_str(), &value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// Give a file or directory an owner and group, if it has others.
pub(super) fn own(fd: impl std::os::fd::AsFd, owner: (u32, u32)) -> Result<(), Errno> {
    if Found::of(&fd)?.owner == owner {
        return Ok(());
    }
    retry(|| rustix::fs::fchown(&fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))))
}

/// The names of the attributes that are carried.
fn names(file: &File) -> Result<Vec<String>, Errno> {
    let length = match retry(|| rustix::fs::flistxattr_query(file)) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno),
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut list = vec![0_u8; length];
    let length = retry(|| rustix::fs::flistxattr(file, list.as_mut_slice()))?;
    list.truncate(length);
    let names = list.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    Ok(names.filter(|name| *name == ACL || name.starts_with(USER)).map(str::to_owned).collect())
}
