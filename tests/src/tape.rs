//! A packet socket that keeps what it hears with the kernel's time of arrival, and is read many frames at a time: a
//! listener that may come late and still knows when.
//!
//! Deliberately absent: sending (`frames`).

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use socket2::{SockFilter, Socket};

use crate::frames::FrameSocket;
use crate::netns::Netns;

/// Frames of one read.
const BATCH: usize = 64;
/// Heads of frames are enough.
const HEAD: usize = 192;
/// A second of 25,600 adverts, several times over.
const BUFFER: usize = 64 << 20;

/// Room for one control message, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// See the module.
pub struct Tape {
    socket: Socket,
    frames: Box<[[u8; HEAD]; BATCH]>,
    controls: Box<[Control; BATCH]>,
}

impl Tape {
    /// Listens on `interface` of the namespace to frames of that EtherType which the filter accepts.
    ///
    /// # Errors
    /// When the namespace or the interface does not exist, or a system call fails.
    pub fn open(netns: &Netns, interface: &str, ether_type: u16, filter: &[SockFilter]) -> Result<Self> {
        let socket = FrameSocket::open(netns, interface, ether_type)?.into_socket();
        socket.attach_filter(filter).context("attaching a filter")?;
        set(&socket, libc::SO_RCVBUFFORCE, BUFFER as libc::c_int).context("setting SO_RCVBUFFORCE")?;
        set(&socket, libc::SO_TIMESTAMPNS, 1).context("setting SO_TIMESTAMPNS")?;
        Ok(Self { socket, frames: Box::new([[0; HEAD]; BATCH]), controls: Box::new([Control([0; 64]); BATCH]) })
    }

    /// Hands over all that was heard since the last time: nanoseconds of CLOCK_REALTIME on arrival, and the frame's first
    /// 192 bytes.
    ///
    /// # Errors
    /// Those of recvmmsg(2), and a frame that came without its time.
    pub fn drain(&mut self, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        loop {
            let mut parts: [libc::iovec; BATCH] =
                std::array::from_fn(|i| libc::iovec { iov_base: self.frames[i].as_mut_ptr().cast(), iov_len: HEAD });
            let mut messages: [libc::mmsghdr; BATCH] = std::array::from_fn(|i| {
                // SAFETY: a `mmsghdr` of zeros is a valid one, without address, parts and control data.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut parts[i], 1);
                message.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
                message.msg_hdr.msg_controllen = size_of::<Control>();
                message
            });
            let (fd, no_wait) = (self.socket.as_raw_fd(), std::ptr::null_mut());
            // SAFETY: the messages' parts and control buffers live in `self`, which is borrowed for longer than the call.
            let count = unsafe {
                libc::recvmmsg(fd, messages.as_mut_ptr(), BATCH as libc::c_uint, libc::MSG_DONTWAIT, no_wait)
            };
            let Ok(count) = usize::try_from(count) else {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error.into()) };
            };
            for (message, frame) in messages[..count].iter().zip(self.frames.iter()) {
                let at_ns = stamp(&message.msg_hdr).context("a frame without the time of its arrival")?;
                each(at_ns, &frame[..(message.msg_len as usize).min(HEAD)]);
            }
            if count < BATCH {
                return Ok(());
            }
        }
    }

    /// How many frames it missed since it was last asked: the reader was too slow.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn missed(&self) -> io::Result<u32> {
        // SAFETY: a `tpacket_stats` of zeros is a valid one.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (fd, option) = (self.socket.as_raw_fd(), libc::PACKET_STATISTICS);
        // SAFETY: both pointers are to live values, the length is that of the first.
        let done =
            unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, (&raw mut statistics).cast(), &raw mut len) };
        if done == 0 { Ok(statistics.tp_drops) } else { Err(io::Error::last_os_error()) }
    }
}

fn set(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live int of that length.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The SCM_TIMESTAMPNS of a message: socket(7).
fn stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled in the message; the macro looks at its control buffer and no further than its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return None;
    }
    // SAFETY: a control message of that type holds a `timespec`, perhaps unaligned.
    let at: libc::timespec = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
    Some(at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64)
}

/// A filter for adverts: IPv4, without options or with, protocol 112 (RFC 9568 5.1.1.4).
pub fn adverts() -> [SockFilter; 4] {
    let code = |code: u32| code as u16;
    [
        SockFilter::new(code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS), 0, 0, 23),
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), 0, 1, 112),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, u32::MAX),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, 0),
    ]
}

/// A filter that accepts everything.
pub fn everything() -> [SockFilter; 1] {
    [SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX)]
}
