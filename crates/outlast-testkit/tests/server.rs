//! A test's own server: it starts, keeps or forgets as configured, and ends with its owner.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use outlast_testkit::resp::{CommandError, Reply};
use outlast_testkit::server::{Builder, REQUIRE_ENV, RedisServer, StartError};

/// Set for the copy of this test binary that is to be killed; it prints its server's pid and folder.
const VICTIM_ENV: &str = "OUTLAST_TEST_VICTIM";

fn started(builder: &Builder) -> Option<RedisServer> {
    RedisServer::or_skip(builder.start())
}

fn text(server: &RedisServer, words: &[&str]) -> Option<String> {
    server.command(words).unwrap_or_else(|error| panic!("{words:?}: {error:?}")).text()
}

/// Polls until something holds, for half a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("not in time: {what}");
}

fn is_there(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a server has a pid");
    rustix::process::test_kill_process(pid).is_ok()
}

#[test]
fn a_server_answers_and_is_gone_with_its_folder_when_it_is_dropped() {
    let Some(server) = started(&RedisServer::builder()) else { return };
    assert_eq!(text(&server, &["SET", "key", "value"]).as_deref(), Some("OK"));
    assert_eq!(server.command(&["GET", "key"]).unwrap(), Reply::Bulk(b"value".to_vec()));
    assert_eq!(server.command(&["LRANGE", "none", "0", "-1"]).unwrap().items(), []);
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
    let version = server.version().unwrap();
    assert!(version.starts_with("redis ") || version.starts_with("valkey "), "{version}");
    assert!(!version.ends_with("unknown"), "{version}");
    let in_its_words = text(&server, &["INFO", "server"]).unwrap();
    let (pid, dir) = (server.pid().unwrap(), server.dir().to_owned());
    assert!(in_its_words.contains(&format!("process_id:{pid}\r\n")), "{pid}: {in_its_words}");
    drop(server);
    assert!(!is_there(pid) && !dir.exists());
}

#[test]
fn an_error_of_the_server_names_the_command_and_its_words() {
    let Some(server) = started(&RedisServer::builder()) else { return };
    let error = server.command(&["NONSENSE", "1"]).unwrap_err();
    assert!(matches!(&error, CommandError::Refused { command, .. } if command == "NONSENSE"));
    assert!(error.to_string().contains("unknown command"), "{error}");
}

#[test]
fn a_restart_keeps_the_port_and_only_what_was_to_be_kept() {
    for (builder, kept) in
        [(RedisServer::builder(), None), (RedisServer::builder().persistent(), Some("value"))]
    {
        let Some(server) = started(&builder) else { return };
        let (addr, pid) = (server.addr(), server.pid());
        server.command(&["SET", "key", "value"]).unwrap();
        server.kill9();
        assert_eq!(server.pid(), None);
        assert!(matches!(server.command(&["PING"]), Err(CommandError::Io { .. })));
        assert!(server.pause().is_err());
        server.restart().unwrap();
        assert_eq!(server.addr(), addr);
        assert_ne!(server.pid(), pid);
        assert_eq!(text(&server, &["GET", "key"]).as_deref(), kept);
    }
}

#[test]
fn a_server_that_was_shut_down_by_a_command_can_be_started_again() {
    let Some(server) = started(&RedisServer::builder()) else { return };
    assert!(server.command(&["SHUTDOWN", "NOSAVE"]).is_err());
    eventually("the server has ended", || server.pid().is_none());
    assert!(server.dir().exists());
    server.restart().unwrap();
    assert_eq!(text(&server, &["PING"]).as_deref(), Some("PONG"));
}

#[test]
fn a_paused_server_answers_when_it_is_resumed_and_not_before() {
    let Some(server) = started(&RedisServer::builder()) else { return };
    let mut connection = server.connect().unwrap();
    server.pause().unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        scope.spawn(move || tell.send(connection.command(&["PING"]).is_ok()).unwrap());
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err());
        server.resume().unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(true));
    });
}

#[test]
fn a_paused_server_can_be_killed() {
    let Some(server) = started(&RedisServer::builder()) else { return };
    server.pause().unwrap();
    let pid = server.pid().unwrap();
    server.kill9();
    assert!(!is_there(pid));
}

#[test]
fn settings_reach_the_server() {
    let builder = RedisServer::builder()
        .requirepass("open sesame".replace(' ', "-").as_str())
        .user("reader", "on >secret ~* +get")
        .maxmemory(50_000_000)
        .unix_socket()
        .debug_commands();
    let Some(server) = started(&builder) else { return };
    let setting = |name: &str| server.command(&["CONFIG", "GET", name]).unwrap().items()[1].text();
    assert_eq!(setting("maxmemory").as_deref(), Some("50000000"));
    assert_eq!(setting("save").as_deref(), Some(""));
    assert_eq!(text(&server, &["DEBUG", "SET-ACTIVE-EXPIRE", "1"]).as_deref(), Some("OK"));
    assert!(std::os::unix::net::UnixStream::connect(server.socket()).is_ok());
    let mut reader = outlast_testkit::resp::Connection::open(server.addr()).unwrap();
    let refused = reader.command(&["GET", "key"]).unwrap_err();
    assert!(refused.to_string().contains("NOAUTH"), "{refused}");
    reader.command(&["AUTH", "reader", "secret"]).unwrap();
    assert_eq!(reader.command(&["GET", "key"]).unwrap(), Reply::Nil);
    assert!(reader.command(&["SET", "key", "1"]).is_err());
}

#[test]
fn a_replica_follows_its_primary() {
    let Some(primary) = started(&RedisServer::builder()) else { return };
    primary.command(&["SET", "key", "value"]).unwrap();
    let replica = RedisServer::builder().replica_of(&primary).start().unwrap();
    eventually("the key is replicated", || {
        text(&replica, &["GET", "key"]).as_deref() == Some("value")
    });
}

#[test]
fn a_start_that_fails_says_why() {
    let missing = RedisServer::builder().binary("/no/such/server").start().unwrap_err();
    let (StartError::Missing { binary } | StartError::Required { binary }) = &missing else {
        panic!("{missing:?}");
    };
    assert_eq!(binary, Path::new("/no/such/server"));
    let required = std::env::var(REQUIRE_ENV).as_deref() == Ok("1");
    assert_eq!(matches!(missing, StartError::Required { .. }), required, "{missing}");
    let Some(_) = started(&RedisServer::builder()) else { return };
    let broken = RedisServer::builder().set("maxmemory", "plenty").start().unwrap_err();
    assert!(matches!(&broken, StartError::Failed { .. }), "{broken:?}");
    assert!(broken.to_string().contains("maxmemory"), "{broken}");
    let smuggled = RedisServer::builder().set("maxmemory", "1\nport 6379").start().unwrap_err();
    assert!(matches!(smuggled, StartError::Setting { .. }), "{smuggled:?}");
}

#[test]
fn a_shared_server_ends_and_its_folder_goes_when_the_test_process_is_killed() {
    if std::env::var_os(VICTIM_ENV).is_some() {
        return be_the_victim();
    }
    if started(&RedisServer::builder()).is_none() {
        return;
    }
    let name = "a_shared_server_ends_and_its_folder_goes_when_the_test_process_is_killed";
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM_ENV, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(victim.stdout.take().unwrap());
    let line = std::io::BufRead::lines(said)
        .find_map(|line| line.unwrap().split_once("server: ").map(|(_, rest)| rest.to_owned()))
        .unwrap();
    let (pid, dir) = line.split_once(' ').unwrap();
    let (pid, dir) = (pid.parse().unwrap(), Path::new(dir));
    assert!(is_there(pid) && dir.exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the server ends", || !is_there(pid));
    eventually("the folder goes", || !dir.exists());
}

/// Waits to be killed, or for the end of the one who should have done it.
fn be_the_victim() {
    let server = RedisServer::shared().expect("it started for the parent");
    assert!(RedisServer::shared().is_ok_and(|again| std::ptr::eq(server, again)));
    println!("server: {} {}", server.pid().expect("it runs"), server.dir().display());
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}
