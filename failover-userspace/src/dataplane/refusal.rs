//! A program that the kernel refused to load, in one sentence for an operator. The verifier's log goes to the debug level.

use std::io;

use aya::programs::ProgramError;

/// The error of a load of `program`, for people.
pub(super) fn explain(program: &str, error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(program, "the verifier's log:\n{verifier_log}");
            let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
            anyhow::Error::msg(sentence(&kernel, program, &io_error))
        }
        other => anyhow::Error::new(other).context(format!("loading the program \"{program}\" into the kernel")),
    }
}

fn sentence(kernel: &str, program: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error() == Some(libc::EPERM) {
        return format!(
            "Linux {kernel} does not let this process load the program \"{program}\" ({error}): run it as root, or with \
             CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
        );
    }
    format!(
        "the verifier of Linux {kernel} refuses the program \"{program}\" ({error}): use Linux 6.1 or later; \
         on one, run again with `--log debug` for the verifier's log, and report its last lines"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_kernel_program_and_what_to_do() {
        let refused = sentence("6.1.0-57-amd64", "failover", &io::Error::from_raw_os_error(libc::EACCES));
        assert!(
            refused.starts_with("the verifier of Linux 6.1.0-57-amd64 refuses the program \"failover\""),
            "{refused}"
        );
        assert!(refused.contains("Linux 6.1 or later") && refused.contains("--log debug"), "{refused}");
        let forbidden = sentence("6.1", "flows", &io::Error::from_raw_os_error(libc::EPERM));
        assert!(forbidden.contains("CAP_PERFMON") && !forbidden.contains("verifier"), "{forbidden}");
    }
}
