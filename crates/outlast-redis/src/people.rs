//! Workers and schedules, as people see them.

use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::{
    BrokerError, Command, Page, PageRequest, ScheduleControl, ScheduleName, ScheduleView,
    Timestamp, WorkerView,
};

use crate::broker::Inner;

fn unwritten<T>() -> Result<T, BrokerError> {
    Err(BrokerError::rejected("people are being written"))
}

impl Inner {
    pub(crate) async fn workers(&self, _: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        unwritten()
    }

    pub(crate) async fn tell(
        &self,
        _: &str,
        _: &Command,
        _: Timestamp,
    ) -> Result<bool, BrokerError> {
        unwritten()
    }

    pub(crate) async fn schedules(
        &self,
        _: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        unwritten()
    }

    pub(crate) async fn ticks(
        &self,
        _: &ScheduleName,
        _: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        unwritten()
    }

    pub(crate) async fn control_schedule(
        &self,
        _: &ScheduleName,
        _: ScheduleControl,
        _: Timestamp,
    ) -> Result<bool, BrokerError> {
        unwritten()
    }
}
