//! The program of generic mode at an interface's tc ingress: by a link that is first in order, or, before Linux 6.6, by a
//! filter. Others' programs and filters are left as they are, and run after it.
//!
//! Why not generic XDP: it never sees a VLAN tag that is in the socket buffer's metadata, where network cards and veths
//! leave it, and would take another VLAN's frame for an untagged one.
//!
//! A filter has no descriptor and outlives everything: what is pinned for it is the program, and the filter is known by the
//! program's id. Deliberately absent: taking the qdisc that filters hang on (clsact) off again, which may be others' by then.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{ProgramError, SchedClassifier};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

use super::bpf;
use crate::attributes::attribute;

/// The program's name in the object, and the kernel's of it.
pub const PROGRAM: &str = "failover_tc";
/// The filter is the first,
const PRIORITY: u16 = 1;
/// and this one of those that are.
const HANDLE: TcHandle = TcHandle::new(0xfa11, 0x0e54);
/// Where a new attachment is pinned before it takes the old one's place. Longer than an interface's name can be.
const NEXT: &str = "the-next-one-of-it";

/// Attaches the program, and has its pin take the place of whatever is pinned at `pin`, which is held by that no more: so
/// there is no moment without a program.
pub(super) fn attach(program: &mut SchedClassifier, interface: &str, pin: &Path) -> Result<()> {
    let next = pin.with_file_name(NEXT);
    // What an earlier controller left that was killed right here.
    let _ = fs::remove_file(&next);
    if links(interface)?.is_some() {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, TcAttachType::Ingress, order)?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        link.pin(&next).with_context(|| format!("pinning the link at {}", next.display()))?;
    } else {
        let pinned = bpf::pin(program.fd()?, &next);
        pinned.with_context(|| format!("pinning the program at {}", next.display()))?;
        attach_filter(program, interface)?;
    }
    fs::rename(&next, pin).with_context(|| format!("renaming {} to {}", next.display(), pin.display()))
}

/// Puts the program in the place of the one that a pinned link has.
pub(super) fn replace(program: &mut SchedClassifier, pin: &Path) -> Result<()> {
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    // The pin holds the link; this handle must not detach it when it goes.
    let _ = FdLink::try_from(program.take_link(id)?);
    Ok(())
}

/// Makes the filter, or puts the program into it, in one step.
fn attach_filter(program: &mut SchedClassifier, interface: &str) -> Result<()> {
    let ingress = TcAttachType::Ingress;
    let id = if filter(index(interface)?)?.is_some() {
        program.attach_to_link(SchedClassifierLink::attached(interface, ingress, PRIORITY, HANDLE, None)?)?
    } else {
        match qdisc_add_clsact(interface) {
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            added => added.context("adding the qdisc clsact")?,
        }
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        program.attach_with_options(interface, ingress, TcAttachOptions::Netlink(options))?
    };
    // Dropped, it would take the filter off.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// The ids of failover's programs at an interface's ingress, whoever has put them there.
///
/// # Errors
/// What the kernel says.
pub fn programs(interface: &str) -> io::Result<Vec<u32>> {
    match links(interface)? {
        Some(ids) => Ok(ids),
        None => Ok(filter(index(interface)?)?.into_iter().collect()),
    }
}

/// Those of them that have links; `None`: this kernel has none for tc.
fn links(interface: &str) -> io::Result<Option<Vec<u32>>> {
    let programs = match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Ok((_, programs)) => programs,
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(None);
        }
        // None was ever attached there.
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
        Err(error) => return Err(io::Error::other(error)),
    };
    let ours = programs.iter().filter(|program| program.name_as_str() == Some(PROGRAM));
    Ok(Some(ours.map(aya::programs::ProgramInfo::id).collect()))
}

/// The id of the program in our filter on an interface of this network namespace. Waits for the kernel's lock on all links
/// (RTNL).
///
/// # Errors
/// Those of netlink.
pub fn filter(ifindex: u32) -> io::Result<Option<u32>> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &request(ifindex), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    program_in(&answer[..len])
}

/// Takes our filter off those interfaces of this network namespace where it has that program.
///
/// # Errors
/// Those of netlink.
pub fn remove_filters(program_id: u32) -> Result<()> {
    for (index, name) in interfaces()? {
        if filter(index)? == Some(program_id) {
            drop(SchedClassifierLink::attached(&name, TcAttachType::Ingress, PRIORITY, HANDLE, None)?);
        }
    }
    Ok(())
}

/// The interfaces of this network namespace.
fn interfaces() -> io::Result<Vec<(u32, String)>> {
    // SAFETY: it takes nothing.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = list;
    // SAFETY: the list ends with an index of 0; its names are strings, and live until it is freed.
    unsafe {
        while (*at).if_index != 0 {
            found.push(((*at).if_index, CStr::from_ptr((*at).if_name).to_string_lossy().into_owned()));
            at = at.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(found)
}

fn index(interface: &str) -> io::Result<u32> {
    Ok(name_to_index(&socket(AddressFamily::INET, SocketType::DGRAM, None)?, interface)?)
}

// rtnetlink(7), in this machine's byte order.
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
/// The header of a message, and with the one of tc.
const HEADER_LEN: usize = 16;
const TC_HEADER_LEN: usize = HEADER_LEN + 20;
/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS).
const INGRESS: u32 = 0xffff_fff2;

/// Asks for our filter on that interface.
fn request(ifindex: u32) -> Vec<u8> {
    let protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let kind_and_flags = u32::from(RTM_GETTFILTER) | (libc::NLM_F_REQUEST as u32) << 16;
    // Of the message: length, kind and flags, sequence, port. Of tc: family, interface, handle, parent, priority and protocol.
    let words = [
        TC_HEADER_LEN as u32,
        if cfg!(target_endian = "little") { kind_and_flags } else { kind_and_flags.rotate_left(16) },
        1,
        0,
        0,
        ifindex,
        HANDLE.into(),
        INGRESS,
        u32::from(PRIORITY) << 16 | protocol,
    ];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The program of the filter that the answer tells of; `None`: there is none.
fn program_in(answer: &[u8]) -> io::Result<Option<u32>> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match kind {
        Some(RTM_NEWTFILTER) => {
            let attributes = answer.get(TC_HEADER_LEN..).unwrap_or_default();
            let is_bpf = attribute(attributes, TCA_KIND) == Some(b"bpf\0");
            let options = attribute(attributes, TCA_OPTIONS).filter(|_| is_bpf).unwrap_or_default();
            Ok(attribute(options, TCA_BPF_ID).and_then(|id| Some(u32::from_ne_bytes(id.try_into().ok()?))))
        }
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let code = answer.get(HEADER_LEN..HEADER_LEN + 4).and_then(|code| code.try_into().ok());
            match code.map_or(0, i32::from_ne_bytes) {
                // No such filter; no qdisc or no filter at all; no such interface.
                code if [-libc::ENOENT, -libc::EINVAL, -libc::ENODEV].contains(&code) => Ok(None),
                code => Err(io::Error::from_raw_os_error(-code)),
            }
        }
        _ => Err(io::Error::other("the kernel answered a question for a filter with something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tc filter add dev eth0 ingress prio 1 handle 0xfa110e54 bpf da ...`, as Linux 6.1 answers: a header of 16 bytes
    /// (kind 44), one of tc's of 20, then the attributes.
    fn answer(kind: &[u8], id: &[u8]) -> Vec<u8> {
        let attribute = |number: u16, value: &[u8]| {
            let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
            bytes.extend(number.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        // Of the options a name (7) and an id (11).
        let options = [attribute(7, b"failover_tc\0"), attribute(11, id)].concat();
        let mut bytes = vec![0; 36];
        bytes[4..6].copy_from_slice(&44_u16.to_ne_bytes());
        // A chain (11) is told of between the two.
        bytes.extend([attribute(1, kind), attribute(11, &[0; 4]), attribute(2, &options)].concat());
        bytes
    }

    #[test]
    fn the_program_of_a_filter_is_found() {
        assert_eq!(program_in(&answer(b"bpf\0", &77_u32.to_ne_bytes())).unwrap(), Some(77));
        assert_eq!(program_in(&answer(b"flower\0", &77_u32.to_ne_bytes())).unwrap(), None, "another kind");
        let whole = answer(b"bpf\0", &77_u32.to_ne_bytes());
        for len in 6..whole.len() {
            assert_eq!(program_in(&whole[..len]).unwrap(), None, "cut to {len}");
        }
    }

    #[test]
    fn that_there_is_none_is_told_from_an_error() {
        let refused = |code: i32| {
            let mut bytes = vec![0; 36];
            bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            program_in(&bytes)
        };
        // ENOENT, EINVAL, ENODEV; EPERM.
        assert!([-2, -22, -19].into_iter().all(|code| refused(code).is_ok_and(|found| found.is_none())));
        assert_eq!(refused(-1).unwrap_err().raw_os_error(), Some(1));
        assert!(program_in(&[]).is_err());
    }

    #[test]
    fn a_pin_on_its_way_is_no_interfaces() {
        assert!(NEXT.len() >= libc::IF_NAMESIZE && !NEXT.contains('.'));
    }
}
