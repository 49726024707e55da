//! What does every broker promise? Named cases, written once, run by every broker.
//!
//! A broker's whole test is a [`Fixture`] and one line, `outlast_testkit::conformance!(MyFixture::new())`;
//! it expands to one `#[tokio::test]` per case of the one list in `list.rs`, so a new case reaches every
//! broker. The rules of the house:
//!
//! - No case asks which broker it runs on. Real differences are data ([`Differences`]); a case that needs
//!   what the fixture cannot do prints why it is skipped.
//! - Every case gets a fixture of its own, in a namespace of its own, so all run in parallel.
//! - Time is an argument: cases run on [`t`], in whole seconds, because asynq stores whole seconds. No
//!   case depends on an order that a broker may choose, such as that of equal due times.

pub mod case;
pub mod fixture;
mod list;
pub mod words;

pub mod act;
pub mod beat;
pub mod claim;
pub mod clock;
pub mod control;
pub mod enqueue;
pub mod errors;
pub mod groups;
pub mod inspect;
pub mod lease;
pub mod limits;
pub mod porter;
pub mod repeat;
pub mod settle;
pub mod sweep;
pub mod unique;
pub mod wait;

pub use case::Case;
pub use fixture::{Differences, Fixture, Handle, Provoked, Skip, TtlClock};
pub use words::{t, task};
