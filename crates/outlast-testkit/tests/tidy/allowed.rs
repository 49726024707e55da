//! The exceptions. This list can only shrink: an entry that permits more than is there fails its rule.

/// One exception: `count` places in `path` where `item` breaks `rule`.
pub(crate) struct Allowed {
    pub(crate) rule: &'static str,
    pub(crate) path: &'static str,
    /// The function, word or law, as the rule's findings name it.
    pub(crate) item: &'static str,
    pub(crate) count: usize,
    pub(crate) why: &'static str,
}

/// All of them: none at present.
pub(crate) const ALLOWED: &[Allowed] = &[];
