//! Which handler runs which type: exact names first, then the longest matching prefix.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;

use outlast_core::TaskType;

use super::function::{ErasedHandler, Handler, Missing, erase, missing_of};
use super::reply::{Failure, Reply};
use super::run::{Run, States};
use crate::error::{Error, Result};

/// Handlers by type.
#[derive(Default)]
pub(crate) struct Router {
    exact: HashMap<String, ErasedHandler>,
    // By prefix; the longest one that fits wins.
    prefix: BTreeMap<String, ErasedHandler>,
    missing: Vec<(String, Missing)>,
    wrong: Option<Error>,
}

impl Router {
    /// Binds a handler to a type, or to a prefix followed by `*`. The first mistake is kept for
    /// [`check`](Self::check).
    pub(crate) fn bind<A: 'static, H: Handler<A>>(&mut self, pattern: &str, handler: H) {
        if let Err(error) = self.try_bind(pattern, erase(handler)) {
            self.wrong.get_or_insert(error);
        }
        self.missing.push((pattern.to_owned(), missing_of::<A, H>()));
    }

    fn try_bind(&mut self, pattern: &str, handler: ErasedHandler) -> Result<()> {
        TaskType::new(pattern)?;
        let (prefix, star) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        if prefix.contains('*') {
            return Err(Error::invalid(format!(
                "handler type {pattern:?} has a * that is not at its end: only a prefix can be matched"
            )));
        }
        let twice = match star {
            true => self.prefix.insert(prefix.to_owned(), handler).is_some(),
            false => self.exact.insert(prefix.to_owned(), handler).is_some(),
        };
        match twice {
            true => Err(Error::invalid(format!("handler type {pattern:?} is bound twice"))),
            false => Ok(()),
        }
    }

    /// The first mistake, or what a handler lacks.
    pub(crate) fn check(&self, states: &States) -> Result<()> {
        if let Some(error) = &self.wrong {
            return Err(error.clone());
        }
        for (pattern, missing) in &self.missing {
            if let Some(what) = missing(states).into_iter().next() {
                return Err(Error::invalid(format!("handler for {pattern:?}: {what}")));
            }
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty()
    }

    fn find(&self, task_type: &str) -> Option<&ErasedHandler> {
        self.exact.get(task_type).or_else(|| {
            let fits =
                self.prefix.iter().filter(|(prefix, _)| task_type.starts_with(prefix.as_str()));
            fits.max_by_key(|(prefix, _)| prefix.len()).map(|(_, handler)| handler)
        })
    }

    pub(crate) fn call(&self, run: Run) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        match self.find(run.task().task_type.as_str()) {
            Some(handler) => handler(run),
            None => {
                // Retried, as asynq does: another worker, or the next release of this one, may know it.
                let text =
                    format!("handler not found for task type {:?}", run.task().task_type.as_str());
                Box::pin(std::future::ready(Reply::Failed(Failure::retry(text))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(patterns: &[&str]) -> Router {
        let mut router = Router::default();
        for pattern in patterns {
            router.bind(pattern, || async {});
        }
        router
    }

    #[test]
    fn exact_beats_prefix_and_longer_beats_shorter() {
        let router = router(&["*", "image:*", "image:thumb:*", "image:thumb"]);
        let found = |task_type: &str| router.find(task_type).map(std::sync::Arc::as_ptr);
        let bound = |prefix: &str| router.prefix.get(prefix).map(std::sync::Arc::as_ptr);
        assert!(std::ptr::addr_eq(found("image:thumb:1").unwrap(), bound("image:thumb:").unwrap()));
        assert!(std::ptr::addr_eq(found("image:x").unwrap(), bound("image:").unwrap()));
        assert!(std::ptr::addr_eq(found("mail").unwrap(), bound("").unwrap()));
        let exact = router.exact.get("image:thumb").map(std::sync::Arc::as_ptr);
        assert!(std::ptr::addr_eq(found("image:thumb").unwrap(), exact.unwrap()));
    }

    #[test]
    fn a_pattern_bound_twice_and_a_star_in_the_middle_are_mistakes() {
        let states = States::default();
        let error = router(&["a:*", "b", "a:*"]).check(&states).expect_err("twice").to_string();
        assert_eq!(error, "handler type \"a:*\" is bound twice");
        assert!(router(&["a*b"]).check(&states).is_err());
        assert!(router(&[" "]).check(&states).is_err());
        assert!(router(&["a:*", "a:b"]).check(&states).is_ok());
    }
}
