//! A network of one's own: the test runs once more, as a process in a namespace, where packets can be dropped without anybody else
//! noticing. The server is reached at an address of its own there; what the test itself asks goes over the loopback's usual one.

use std::io::Write as _;
use std::process::Command;

use outlast_testkit::server::{REQUIRE_ENV, RedisServer};

use crate::story::{Meter, Story};
use crate::world::World;

/// Says which test the process in the namespace is.
const INSIDE_ENV: &str = "OUTLAST_OUTAGE_NAMESPACE";

/// Where clients find the server: faults are made for this address only.
pub(crate) const ADDRESS: &str = "10.77.0.1";

/// The address, and a chain for incoming packets. Everything on this machine comes in through the loopback.
const SET_UP: &str = "ip link set lo up && ip addr add 10.77.0.1/32 dev lo && nft add table inet f && \
    nft add chain inet f i '{ type filter hook input priority 0; }' && exec \"$@\"";

/// The test that this process was started for, if it runs in a namespace.
pub(crate) fn inside() -> Option<String> {
    std::env::var(INSIDE_ENV).ok()
}

/// True in the namespace: the test goes on. Outside it runs this very test in there, and is over. A machine without namespaces or
/// `nft` skips it and says so, but for one where everything has to be there.
pub(crate) fn is_entered() -> bool {
    if inside().is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let possible =
        Command::new("unshare").args(["-m", "-n", "sh", "-c", SET_UP, "sh", "true"]).output();
    if !possible.as_ref().is_ok_and(|output| output.status.success()) {
        let why = format!("needs unshare, ip and nft, as root: {possible:?}");
        assert!(std::env::var_os(REQUIRE_ENV).is_none_or(|set| set != "1"), "{test} {why}");
        // Not through eprintln!, whose words are kept from the terminal when a test passes.
        let _unread = writeln!(std::io::stderr(), "skipped: {test} {why}");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "-n", "sh", "-c", SET_UP, "sh"])
        .arg(program)
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE_ENV, &test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    false
}

/// All is well on a server behind this network.
pub(crate) async fn begin() -> Option<Story> {
    let builder = RedisServer::builder().persistent().set("protected-mode", "no");
    begin_on(builder).await
}

/// The same on a server that is set up for its fault.
pub(crate) async fn begin_on(builder: outlast_testkit::server::Builder) -> Option<Story> {
    let server =
        RedisServer::or_skip(builder.set("bind", &format!("127.0.0.1 {ADDRESS}")).start())?;
    let url = format!("redis://{ADDRESS}:{}", server.port());
    let meter = Meter::Server(server.connect().unwrap());
    Some(Story::of(World::at(server, &url).await, meter).await)
}

/// A fault: what is done to packets.
pub(crate) fn rule(words: &str) {
    nft(&format!("add rule inet f i {words}"));
}

/// No fault any more.
pub(crate) fn heal() {
    nft("flush chain inet f i");
}

fn nft(words: &str) {
    let output = Command::new("nft").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}
