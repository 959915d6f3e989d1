//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside the connections: standard streams, an epoll and its helpers for each thread, `/proc`.
const OTHERS: u64 = 64;

/// Raises the soft limit to the hard one, and refuses a run that needs more.
pub(crate) fn allow_connections(n: usize) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    check(n, have)
}

/// `None` is no limit.
fn check(connections: usize, have: Option<u64>) -> Result<(), String> {
    let need = connections as u64 + OTHERS;
    match have {
        Some(have) if have < need => Err(format!(
            "{connections} connections need {need} open files, and the hard limit is {have}; raise it with \
             `ulimit -Hn {need}` as root (for a service: LimitNOFILE={need}), or use fewer --conns"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_file_limit_is_reported_with_the_remedy() {
        assert!(check(10, None).is_ok() && check(10, Some(74)).is_ok());
        let message = check(1000, Some(500)).unwrap_err();
        assert!(message.contains("500") && message.contains("ulimit -Hn 1064"), "{message}");
    }
}
