//! Tests that need a process of their own, since what they measure or change exists once in a process: its memory, its
//! panic hook, its subscriber of log lines.

use std::any::type_name;
use std::process::Command;

/// Set in the process that was started for one test.
const CHILD: &str = "CAMPANILE_TEST_ISOLATED";

/// Runs the calling test again in a new process, where it is alone and `body` is called. To be called with a closure and
/// as the only statement of a test function, since the closure's type names the test.
pub(crate) fn isolated<F: FnOnce()>(body: F) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    // "suite::module::test::{{closure}}"
    let path = type_name::<F>();
    let name = path.strip_suffix("::{{closure}}").expect("the body is a closure");
    let (_, name) = name.split_once("::").expect("the test is in a module");
    let program = std::env::current_exe().expect("the path of this test binary");
    let output = Command::new(program)
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("this test binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{name}: {}\n{stdout}\n{stderr}",
        output.status
    );
}
