//! What goes wrong in a soak, and how it is done to a real server, the way to it, and the processes.

use std::time::Duration;

use outlast_testkit::proxy::Direction;
use outlast_testkit::split_mix::SplitMix;

use crate::world::World;

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// SIGKILL for the server, which comes back with what it had acknowledged.
    KillServer,
    /// SIGSTOP for the server.
    FreezeServer,
    /// Nobody answers, neither the server nor the network.
    BlackHole,
    /// Connections are refused.
    Refuse,
    /// Connections are reset, all at once.
    Reset,
    /// The replies to the next requests are lost.
    LoseReplies(u64),
    /// Every piece of a reply takes so long.
    Delay(Duration),
    /// No memory for new tasks.
    Full,
    /// The user may not log in.
    Barred,
    /// SIGKILL for a process.
    Kill(usize),
    /// SIGSTOP for a process.
    Freeze(usize),
}

impl Fault {
    pub(crate) fn of(dice: &mut SplitMix, processes: usize) -> Self {
        let process = dice.below(processes as u64) as usize;
        match dice.below(13) {
            0 => Fault::KillServer,
            1 => Fault::FreezeServer,
            2 => Fault::BlackHole,
            3 => Fault::Refuse,
            4 => Fault::Reset,
            5 => Fault::LoseReplies(1 + dice.below(20)),
            6 => Fault::Delay(dice.time(Duration::from_millis(20), Duration::from_millis(700))),
            7 => Fault::Full,
            8 => Fault::Barred,
            9..=11 => Fault::Kill(process),
            _ => Fault::Freeze(process),
        }
    }

    pub(crate) async fn begin(self, world: &mut World) {
        let (server, proxy) = (&world.server, &world.proxy);
        match self {
            Fault::KillServer => server.kill9(),
            Fault::FreezeServer => server.pause().unwrap(),
            Fault::BlackHole => proxy.black_hole(),
            Fault::Refuse => proxy.refuse().await.unwrap(),
            Fault::Reset => proxy.reset_connections(),
            Fault::LoseReplies(requests) => proxy.lose_replies(requests),
            Fault::Delay(by) => proxy.delay(Direction::ToClient, by),
            Fault::Full => {
                server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
            }
            Fault::Barred => {
                server.command(&["ACL", "SETUSER", World::USER, "off"]).unwrap();
                proxy.reset_connections();
            }
            Fault::Kill(who) => world.kill(who),
            Fault::Freeze(who) => world.signal(who, rustix::process::Signal::STOP),
        }
    }

    pub(crate) async fn end(self, world: &mut World) {
        let (server, proxy) = (&world.server, &world.proxy);
        match self {
            Fault::KillServer => server.restart().unwrap(),
            Fault::FreezeServer => server.resume().unwrap(),
            Fault::BlackHole | Fault::Refuse | Fault::LoseReplies(_) | Fault::Delay(_) => {
                proxy.heal().await.unwrap();
            }
            Fault::Reset => {}
            Fault::Full => {
                server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
            }
            Fault::Barred => {
                server.command(&["ACL", "SETUSER", World::USER, "on"]).unwrap();
            }
            Fault::Kill(who) => world.start(who),
            Fault::Freeze(who) => world.signal(who, rustix::process::Signal::CONT),
        }
    }
}
