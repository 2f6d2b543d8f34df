//! A network device of the host goes into a container (config-linux.md, "Network Devices"), by rtnetlink(7).
//!
//! ```text
//! the host's namespace                  the container's
//!   RTM_GETLINK  its index                .
//!   RTM_GETADDR  its addresses            .
//!   .                                     RTM_GETLINK  an index that is free there
//!   RTM_SETLINK  down, name, index ---->  .
//!   .                                     RTM_NEWADDR  each lasting address of global scope
//!   .                                     RTM_SETLINK  up
//! ```

use std::ffi::CStr;

use crate::sys::{self, Errno, Fd};

const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NEW_IFINDEX: u16 = 49;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IFA_F_PERMANENT: u32 = 0x80;
/// What detecting duplicates has found out: here it begins anew.
const IFA_F_STATE: u32 = 0x08 | 0x40;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
/// An index as high as no kernel counts up to by itself.
const FIRST_FREE: u32 = 1 << 24;

/// Lets a helper do something where it leaves this process's namespaces; what it opens is ours.
type Aside = fn(&dyn Fn() -> sys::Result<Fd>) -> sys::Result<Fd>;

/// Moves the device `name` of this network namespace into `namespace`, as `inside`.
pub(super) fn move_into(namespace: Fd, name: &CStr, inside: &CStr, aside: Aside) -> sys::Result<()> {
    let here = Route::new(sys::route_socket()?);
    let there = Route::new(aside(&|| {
        sys::setns(namespace, libc::CLONE_NEWNET as u64)?;
        sys::route_socket()
    })?);
    let index = here.index_of(name)?;
    // The kernel gives the name when the device has moved already: too late to stay.
    if !inside.to_bytes().contains(&b'%') && there.index_of(inside).is_ok() {
        return Err(Errno(libc::EEXIST));
    }
    let addresses = here.addresses(index)?;
    // The kernel keeps the index where it can; where it can't, we have to know the new one.
    let new = if there.has(index)? { (FIRST_FREE..).find(|&free| there.has(free) == Ok(false)) } else { Some(index) };
    let new = new.ok_or(Errno(libc::ENOSPC))?;
    let mut request = link(index, 0, IFF_UP);
    put(&mut request, IFLA_NET_NS_FD, &namespace.to_ne_bytes());
    put(&mut request, IFLA_IFNAME, inside.to_bytes_with_nul());
    put(&mut request, IFLA_NEW_IFINDEX, &new.to_ne_bytes());
    here.ask(RTM_SETLINK, NLM_F_ACK, &request)?;
    for address in addresses {
        there.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &address.on(new))?;
    }
    there.ask(RTM_SETLINK, NLM_F_ACK, &link(new, IFF_UP, IFF_UP)).map(|_| ())
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    [index, flags, change].iter().for_each(|word| message.extend_from_slice(&word.to_ne_bytes()));
    message
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len();
    message.extend_from_slice(&(length as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len() + length.next_multiple_of(4) - length, 0);
}

/// Length and kind stand before each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct ifaddrmsg` and its attributes.
struct Address {
    head: [u8; 8],
    flags: u32,
    attributes: Vec<u8>,
}

impl Address {
    /// `None` for what does not last, or is not for the world outside.
    fn lasting(body: &[u8], device: u32) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<8>()?;
        let index = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        let mut flags = u32::from(head[2]);
        let mut kept = Vec::new();
        for (kind, value) in attributes(rest) {
            match (kind, value) {
                (IFA_FLAGS, &[a, b, c, d]) => flags = u32::from_ne_bytes([a, b, c, d]),
                // The label is the device's old name.
                (IFA_LABEL | IFA_CACHEINFO, _) => {}
                _ => put(&mut kept, kind, value),
            }
        }
        let lasts = flags & IFA_F_PERMANENT != 0 && head[3] == RT_SCOPE_UNIVERSE && index == device;
        lasts.then_some(Self { head: *head, flags, attributes: kept })
    }

    fn on(&self, device: u32) -> Vec<u8> {
        let flags = self.flags & !IFA_F_STATE;
        let mut message = self.head.to_vec();
        message[2] = flags as u8;
        message[4..8].copy_from_slice(&device.to_ne_bytes());
        message.extend_from_slice(&self.attributes);
        put(&mut message, IFA_FLAGS, &flags.to_ne_bytes());
        message
    }
}

/// A socket of one network namespace.
struct Route(Fd);

impl Drop for Route {
    fn drop(&mut self) {
        sys::close(self.0);
    }
}

impl Route {
    fn new(socket: Fd) -> Self {
        Self(socket)
    }

    fn index_of(&self, name: &CStr) -> sys::Result<u32> {
        let mut request = link(0, 0, 0);
        put(&mut request, IFLA_IFNAME, name.to_bytes_with_nul());
        let answers = self.ask(libc::RTM_GETLINK, 0, &request)?;
        let body = answers.first().and_then(|body| body.get(4..8)).ok_or(Errno(libc::ENODEV))?;
        Ok(u32::from_ne_bytes([body[0], body[1], body[2], body[3]]))
    }

    fn has(&self, index: u32) -> sys::Result<bool> {
        match self.ask(libc::RTM_GETLINK, 0, &link(index, 0, 0)) {
            Ok(_) => Ok(true),
            Err(Errno(libc::ENODEV)) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn addresses(&self, device: u32) -> sys::Result<Vec<Address>> {
        let all = self.ask(libc::RTM_GETADDR, NLM_F_DUMP, &[0; 8])?;
        Ok(all.iter().filter_map(|body| Address::lasting(body, device)).collect())
    }

    /// Sends one request and returns the bodies of what is answered.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> sys::Result<Vec<Vec<u8>>> {
        const HEADER: usize = 16;
        let mut request = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        sys::write(self.0, &request)?;
        let mut answers = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = sys::read(self.0, &mut piece)?;
            let mut rest = &piece[..length];
            while let Some(head) = rest.first_chunk::<HEADER>() {
                let size = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let message = rest.get(HEADER..size).ok_or(Errno(libc::EPROTO))?;
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
                match u16::from_ne_bytes([head[4], head[5]]) {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let number = message.first_chunk().map_or(-libc::EPROTO, |word| i32::from_ne_bytes(*word));
                        return if number == 0 { Ok(answers) } else { Err(Errno(-number)) };
                    }
                    _ => answers.push(message.to_vec()),
                }
            }
            // Neither a list nor a change: one answer is all.
            if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                return Ok(answers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scope: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, 24, 0x80, scope, 7, 0, 0, 0];
        put(&mut body, 1, &[10, 0, 0, 1]);
        put(&mut body, IFA_LABEL, b"eth0\0");
        put(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
        body
    }

    #[test]
    fn lasting_addresses_of_global_scope_come_along() {
        let kept = Address::lasting(&address(0, 0x280), 7).unwrap().on(9);
        assert_eq!(u32::from_ne_bytes([kept[4], kept[5], kept[6], kept[7]]), 9);
        let found: Vec<_> = attributes(&kept[8..]).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(found, [(1, vec![10, 0, 0, 1]), (IFA_FLAGS, 0x280u32.to_ne_bytes().to_vec())]);
        assert!(Address::lasting(&address(253, 0x80), 7).is_none());
        assert!(Address::lasting(&address(0, 0), 7).is_none());
        assert!(Address::lasting(&address(0, 0x80), 8).is_none());
        assert!(Address::lasting(&[], 7).is_none());
    }
}
