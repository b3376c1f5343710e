//! The program that asks an interface's driver for the VLAN of a frame whose bytes don't tell it (`failover_bound`): loaded
//! for that one interface, with the maps that are there already.
//!
//! The call is to a function of the kernel's, `bpf_xdp_metadata_rx_vlan_tag` (Linux 6.8), which only a program may make
//! that is bound to a device. aya neither binds programs nor knows such calls; so the object is read and relocated with
//! aya's own parts, and loaded here. In the object it is no program, so that others can load all programs of it.
//!
//! Deliberately absent: whether the driver has an answer (`netdev`), and attaching.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use aya::programs::Xdp;
use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::{
    BPF_CALL, BPF_F_XDP_DEV_BOUND_ONLY, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn,
    bpf_prog_type,
};
use aya_obj::programs::XdpAttachType;
use aya_obj::{Function, Object, Program, ProgramSection};

use super::bpf;

/// Its name in the object, where it is a function like others.
pub const PROGRAM: &str = "failover_bound";
/// The kernel's function that it calls.
const KERNEL_FUNCTION: &str = "bpf_xdp_metadata_rx_vlan_tag";
/// Of the verifier's log, bytes: it refuses a program near its beginning or its end, and both fit.
const LOG_LEN: usize = 1024 * 1024;
/// The verifier gives up when a signal comes, EAGAIN; as often as libbpf tries again.
const ATTEMPTS: u32 = 5;

/// The function's number in this kernel's BTF.
static NUMBER: LazyLock<Option<u32>> =
    LazyLock::new(|| Btf::from_sys_fs().ok()?.id_by_type_name_kind(KERNEL_FUNCTION, BtfKind::Func).ok());

/// Whether this kernel has the function at all.
pub fn is_known() -> bool {
    NUMBER.is_some()
}

/// Loads the program of `object` for the interface with that index in this network namespace. `maps` are those of the
/// object, by their names, and `pin` is a path on a bpffs that is free and will be again: through it aya takes the program
/// over.
///
/// # Errors
/// What the kernel says, or that it is too old. The verifier's log goes to the debug level.
pub fn load(object: &[u8], maps: &[(&str, BorrowedFd<'_>)], ifindex: u32, pin: &Path) -> Result<Xdp> {
    let number = NUMBER.with_context(|| format!("this kernel has no {KERNEL_FUNCTION}: it needs Linux 6.8"))?;
    let mut object = Object::parse(object).context("reading the object")?;
    let btf = load_btf(&mut object).context("loading the object's BTF")?;
    let (program, mut function) = relocate(&mut object, maps)?;
    for call in function.instructions.iter_mut().filter(|instruction| is_kernel_call(instruction)) {
        call.imm = number as i32;
    }
    let program = load_program(&function, &program.license, &btf, ifindex)?;
    take_over(&program, pin)
}

/// Makes the function of that name the object's one program, and puts the maps' descriptors and the functions that it calls
/// into it.
fn relocate(object: &mut Object, maps: &[(&str, BorrowedFd<'_>)]) -> Result<(Program, Function)> {
    let missing = || format!("the object has no function {PROGRAM}");
    let function = object.functions.values_mut().find(|function| function.name == PROGRAM).with_context(missing)?;
    // Of a section's functions aya counts places from the section's beginning, of a program's from its own.
    let begins_at = (function.section_offset / size_of::<bpf_insn>()) as u32;
    function.func_info.func_info.iter_mut().for_each(|info| info.insn_off -= begins_at);
    function.line_info.line_info.iter_mut().for_each(|info| info.insn_off -= begins_at);
    let program = Program {
        license: object.license.clone(),
        kernel_version: None,
        section: ProgramSection::Xdp { frags: false, attach_type: XdpAttachType::Interface },
        section_index: function.section_index.0,
        address: function.address,
    };
    object.programs.clear();
    object.programs.insert(PROGRAM.into(), program.clone());
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let known = std::mem::take(&mut object.maps);
    let mut with_descriptors = Vec::new();
    for (name, map) in &known {
        let found = maps.iter().find(|(known, _)| known == name);
        let (_, descriptor) = found.with_context(|| format!("no map {name} for the program {PROGRAM}"))?;
        with_descriptors.push((name.as_str(), descriptor.as_raw_fd(), map));
    }
    object.relocate_maps(with_descriptors.into_iter(), &sections).context("relocating maps")?;
    object.relocate_calls(&sections).context("relocating calls")?;
    let function = object.functions.get(&program.function_key()).with_context(missing)?.clone();
    Ok((program, function))
}

fn is_kernel_call(instruction: &bpf_insn) -> bool {
    u32::from(instruction.code) == BPF_JMP | BPF_CALL && u32::from(instruction.src_reg()) == BPF_PSEUDO_KFUNC_CALL
}

/// The types of the object's functions: the kernel takes functions with a name only with them.
fn load_btf(object: &mut Object) -> Result<OwnedFd> {
    let Some(features) = aya::features().btf() else { bail!("this kernel takes no BTF") };
    let bytes = object.fixup_and_sanitize_btf(features)?.context("the object has none")?.to_bytes();
    let mut attributes = no_attributes();
    // SAFETY: of a union of plain numbers that is all zeros, every part is valid.
    let btf = unsafe { &mut attributes.__bindgen_anon_7 };
    (btf.btf, btf.btf_size) = (bytes.as_ptr() as u64, bytes.len() as u32);
    // SAFETY: the attributes are this command's, and `bytes` lives.
    Ok(unsafe { bpf::descriptor(bpf_cmd::BPF_BTF_LOAD as libc::c_int, &attributes) }?)
}

fn load_program(function: &Function, license: &CString, btf: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let mut attributes = no_attributes();
    // SAFETY: as in `load_btf`.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
    program.expected_attach_type = bpf_attach_type::BPF_XDP as u32;
    program.prog_flags = BPF_F_XDP_DEV_BOUND_ONLY;
    program.prog_ifindex = ifindex;
    for (to, from) in program.prog_name.iter_mut().zip(PROGRAM.bytes()) {
        *to = from as libc::c_char;
    }
    (program.insns, program.insn_cnt) = (function.instructions.as_ptr() as u64, function.instructions.len() as u32);
    program.license = license.as_ptr() as u64;
    program.prog_btf_fd = btf.as_raw_fd() as u32;
    (program.func_info, program.func_info_cnt) = (functions.as_ptr() as u64, function.func_info.len() as u32);
    program.func_info_rec_size = function.func_info_rec_size as u32;
    (program.line_info, program.line_info_cnt) = (lines.as_ptr() as u64, function.line_info.len() as u32);
    program.line_info_rec_size = function.line_info_rec_size as u32;
    for _ in 1..ATTEMPTS {
        // SAFETY: the attributes are this command's, and what they point to lives.
        match unsafe { bpf::descriptor(bpf_cmd::BPF_PROG_LOAD as libc::c_int, &attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(_) => break,
            Ok(loaded) => return Ok(loaded),
        }
    }
    // Once more, for what the verifier has to say.
    let mut log = vec![0_u8; LOG_LEN];
    // SAFETY: as in `load_btf`.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    (program.log_level, program.log_buf, program.log_size) = (1, log.as_mut_ptr() as u64, log.len() as u32);
    // SAFETY: as above; nothing else looks at the log meanwhile.
    unsafe { bpf::descriptor(bpf_cmd::BPF_PROG_LOAD as libc::c_int, &attributes) }.map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        tracing::debug!(program = PROGRAM, "the verifier's log:\n{}", String::from_utf8_lossy(&log[..end]));
        anyhow::Error::new(error).context(format!("loading the program \"{PROGRAM}\" for interface {ifindex}"))
    })
}

/// Makes it one of aya's programs, which come from its own loader or from a pin.
fn take_over(program: &OwnedFd, pin: &Path) -> Result<Xdp> {
    let pinning = || format!("pinning the program \"{PROGRAM}\" at {}", pin.display());
    // A controller that was killed right here may have left one.
    let _ = std::fs::remove_file(pin);
    bpf::pin(program, pin).with_context(pinning)?;
    let taken = Xdp::from_pin(pin, XdpAttachType::Interface);
    std::fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
    taken.with_context(|| format!("opening {}", pin.display()))
}

fn no_attributes() -> bpf_attr {
    // SAFETY: a union of plain numbers.
    unsafe { std::mem::zeroed() }
}
