//! What the layers cost while the broker is well: the same enqueues over a connection with them and one without, in turns.

use outlast::{Client, Connection};

use super::{Bench, Enqueued, Expect, PRODUCERS, enqueue};
use crate::bench::redis::median;
use crate::bench::{Figure, Outcome};

/// What one turn of both sides came to: with the layers, and without.
struct Turn {
    with: Enqueued,
    without: Enqueued,
}

impl Turn {
    fn both(&self, of: impl Fn(&Enqueued) -> f64) -> (f64, f64) {
        (of(&self.with), of(&self.without))
    }
}

impl Bench {
    pub(super) async fn cost(&mut self, each: &mut impl FnMut(Figure)) -> Outcome<()> {
        let without = Connection::without_spool(&self.url).await?;
        let with = self.surviving(&self.url, "cost").await?;
        let clients = [with.client(), without.client()];
        // Making connections is not what is measured.
        self.turn(&clients, (1, self.plan.single), 0).await?;
        for (figure, unit, producers, count) in [
            (
                "survive.overhead",
                "% of the throughput of 64 callers",
                PRODUCERS,
                self.plan.concurrent,
            ),
            ("survive.overhead.p50", "µs an enqueue", 1, self.plan.single),
        ] {
            let (mut differences, mut bare, mut exact) = (Vec::new(), Vec::new(), true);
            for round in 0..self.plan.rounds {
                let turn = self.turn(&clients, (producers, count), round).await?;
                exact &= turn.with.as_expected && turn.without.as_expected;
                let (value, peer) = match producers {
                    1 => {
                        let (with, without) = turn.both(|enqueued| enqueued.percentile(50));
                        (with - without, without)
                    }
                    _ => {
                        let (with, without) = turn.both(Enqueued::rate);
                        (100.0 * (1.0 - with / without), without)
                    }
                };
                differences.push(value);
                bare.push(peer);
            }
            let what = match producers {
                1 => "µs without",
                _ => "tasks/s without",
            };
            let mut figure = Figure::new(figure, median(differences), unit).exact(exact);
            figure = figure.beside(what, median(bare));
            figure.rounds = Some(self.plan.rounds);
            each(figure);
        }
        with.close().await;
        without.close().await;
        Ok(())
    }

    /// Both sides once, each being first in every other round; what they enqueued is counted and taken away.
    async fn turn(
        &mut self,
        [with, without]: &[Client; 2],
        (producers, count): (usize, usize),
        round: usize,
    ) -> Outcome<Turn> {
        let with_first = round.is_multiple_of(2);
        let order = if with_first { [with, without] } else { [without, with] };
        let [first, second] = [
            self.enqueued(order[0], producers, count).await?,
            self.enqueued(order[1], producers, count).await?,
        ];
        Ok(match with_first {
            true => Turn { with: first, without: second },
            false => Turn { with: second, without: first },
        })
    }

    async fn enqueued(
        &mut self,
        client: &Client,
        producers: usize,
        count: usize,
    ) -> Outcome<Enqueued> {
        let numbers = 0..count;
        let mut enqueued =
            enqueue(client, &self.site.queue, producers, numbers, Expect::Accepted).await?;
        enqueued.as_expected &= self.site.holds(count).await?;
        self.site.empty().await?;
        Ok(enqueued)
    }
}
