//! Mounts.

use std::ffi::{CStr, c_int, c_uint, c_void};

use pyrt_syscall::nothing;

use super::{Fd, Result, descriptor};

/// MOUNT_ATTR_RDONLY of mount_setattr(2).
pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
/// MOUNT_ATTR_NOSUID.
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
/// MOUNT_ATTR_NODEV.
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
/// MOUNT_ATTR_NOEXEC.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const AT_RECURSIVE: c_int = 0x8000;

/// fsopen(2).
pub fn fsopen(fstype: &CStr) -> Result<Fd> {
    descriptor(call!(SYS_fsopen, fstype.as_ptr(), 1))
}

/// fsconfig(2) FSCONFIG_SET_FLAG.
pub fn fsconfig_flag(context: Fd, key: &CStr) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 0, key.as_ptr(), std::ptr::null::<c_void>(), 0))
}

/// fsconfig(2) FSCONFIG_SET_STRING; the kernel takes at most 255 bytes of value.
pub fn fsconfig_string(context: Fd, key: &CStr, value: &CStr) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 1, key.as_ptr(), value.as_ptr(), 0))
}

/// fsconfig(2) FSCONFIG_CMD_CREATE.
pub fn fsconfig_create(context: Fd) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 6, std::ptr::null::<c_void>(), std::ptr::null::<c_void>(), 0))
}

/// fsmount(2), close-on-exec.
pub fn fsmount(context: Fd, attributes: u64) -> Result<Fd> {
    descriptor(call!(SYS_fsmount, context, 1, attributes as c_uint))
}

/// open_tree(2) with OPEN_TREE_CLONE of `path` below `dir`; "" is `dir` itself; no symlink followed.
pub fn clone_tree(dir: Fd, path: &CStr, recursive: bool) -> Result<Fd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = 1 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | recursive;
    descriptor(call!(SYS_open_tree, dir, path.as_ptr(), flags))
}

/// move_mount(2) of the mount `mount` over the place `target`, both by descriptor alone.
pub fn move_mount(mount: Fd, target: Fd) -> Result<()> {
    let empty: c_uint = 0x04 | 0x40;
    nothing(call!(SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), empty))
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn mount_setattr(mount: Fd, recursive: bool, attributes: &MountAttributes) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let size = size_of::<MountAttributes>();
    nothing(call!(SYS_mount_setattr, mount, c"".as_ptr(), flags, std::ptr::from_ref(attributes), size))
}

/// mount_setattr(2) of MOUNT_ATTR_ bits and MS_ propagation.
pub fn set_mount_attributes(mount: Fd, set: u64, clear: u64, propagation: u64, recursive: bool) -> Result<()> {
    mount_setattr(mount, recursive, &MountAttributes { set, clear, propagation, userns: 0 })
}

/// mount_setattr(2) with MOUNT_ATTR_IDMAP: the mount shows owners as `userns` maps them.
pub fn idmap_mount(mount: Fd, userns: Fd, recursive: bool) -> Result<()> {
    let attributes = MountAttributes { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns: userns as u64 };
    mount_setattr(mount, recursive, &attributes)
}

/// mount(2) that only changes the propagation of /, with MS_REC of all below it as well.
pub fn set_propagation(flags: u64) -> Result<()> {
    let none = std::ptr::null::<c_void>();
    nothing(call!(SYS_mount, none, c"/".as_ptr(), none, flags, none))
}

/// mount(2) of a new file system with the options `data`, at most a page of them.
pub fn mount(fstype: &CStr, target: &CStr, flags: u64, data: &CStr) -> Result<()> {
    nothing(call!(SYS_mount, fstype.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr()))
}

/// pivot_root(2) of "." onto itself: the old root ends up stacked over the new one.
pub fn pivot_root_here() -> Result<()> {
    nothing(call!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))
}

/// umount2(2) with MNT_DETACH of what is stacked at ".".
pub fn detach_here() -> Result<()> {
    nothing(call!(SYS_umount2, c".".as_ptr(), libc::MNT_DETACH))
}

/// umount2(2) with MNT_DETACH of what is mounted at `path`.
pub fn detach(path: &CStr) -> Result<()> {
    nothing(call!(SYS_umount2, path.as_ptr(), libc::MNT_DETACH))
}

/// The number of the mount that an open file lies on, attached or not (statx(2), STATX_MNT_ID).
pub fn mount_id(fd: Fd) -> Result<u64> {
    // SAFETY: `struct statx` is plain numbers, for which zeroes are a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    call!(SYS_statx, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_MNT_ID, &raw mut stat)?;
    Ok(stat.stx_mnt_id)
}
