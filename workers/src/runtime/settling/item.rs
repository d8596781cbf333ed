//! The events of one kind on their way through settling: parsed once, then each an [`Item`] of a transaction.

use std::{borrow::Cow, collections::HashMap, collections::HashSet, ops::Range};

use contracts::{Command, Outcome, messages::create_notification::NotificationTarget};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{disposition::Disposition, inbox::SettledRow, raw_event::RawEvent};
use crate::runtime::{
    failure::Failure,
    handler::{Delivery, FollowUp},
};

/// One event in a transaction: as it was delivered, parsed, and as far as it is settled already.
pub struct Item<'a, C> {
    pub event: &'a RawEvent,
    pub delivery: &'a Delivery<C>,
    /// Its row in the inbox, if there is one.
    pub row: Option<&'a SettledRow>,
}

impl<C> Item<'_, C> {
    /// Returns whether the event is still to be settled: never seen, or failed and now replayed by an operator.
    pub fn is_fresh(&self) -> bool {
        self.row.is_none_or(|row| row.state == "failed" && self.event.replay > 0)
    }

    /// Returns the disposition of an event that was settled now.
    pub fn settled(
        &self,
        source: &str,
        state: &'static str,
        follow_ups: &[FollowUp],
        notified: Option<NotificationTarget>,
    ) -> Disposition {
        let follow_ups = follow_ups.iter().map(|follow_up| follow_up.event(self.delivery, source)).collect();
        Disposition::Settled { state, follow_ups, notified }
    }

    /// Returns the disposition of an event that was settled before; `follow_ups` computes those of its committed
    /// outcome.
    ///
    /// # Errors
    /// [`Failure::Poison`] where the stored outcome is not of the kind's shape.
    pub fn duplicate<R, M>(
        &self,
        source: &str,
        follow_ups: impl FnOnce(&Outcome<R, M>) -> Vec<FollowUp>,
    ) -> Result<Disposition, Failure>
    where
        R: DeserializeOwned,
        M: DeserializeOwned + Default,
    {
        let follow_ups = self.committed()?.map(|outcome| follow_ups(&outcome)).unwrap_or_default();
        let follow_ups = follow_ups.iter().map(|follow_up| follow_up.event(self.delivery, source)).collect();
        Ok(Disposition::Duplicate { follow_ups })
    }

    /// The outcome that was committed for this event; none where the row has failed, or is of another payload under the
    /// same id: its follow-ups are then not this event's.
    fn committed<R, M>(&self) -> Result<Option<Outcome<R, M>>, Failure>
    where
        R: DeserializeOwned,
        M: DeserializeOwned + Default,
    {
        self.row
            .filter(|row| row.state != "failed" && row.fingerprint == self.event.fingerprint.as_bytes())
            .map(|row| row.outcome().map_err(Failure::poison))
            .transpose()
    }
}

/// The events of one kind that are settled together, parsed. Events and deliveries are two columns because handlers
/// take deliveries as one slice; only this file indexes them.
pub struct Items<'a, C> {
    events: Vec<&'a RawEvent>,
    deliveries: Vec<Delivery<C>>,
    /// One entry for every event given to [`Items::parse`]; none where the event became an item.
    decided: Vec<Option<Disposition>>,
}

impl<'a, C: Command> Items<'a, C> {
    /// Parses events. Invalid ones are decided here; of several with one id, all but the first in order are duplicates,
    /// whose follow-ups go out with the first one's.
    pub fn parse(events: &'a [RawEvent]) -> Self {
        let len = events.len();
        let mut items =
            Self { events: Vec::with_capacity(len), deliveries: Vec::with_capacity(len), decided: Vec::new() };
        let mut seen = HashSet::with_capacity(len);
        for event in events {
            let decided = if seen.insert(event.id) {
                items.add(event).err().map(|failure| Disposition::of_failure(&failure))
            } else {
                Some(Disposition::Duplicate { follow_ups: Vec::new() })
            };
            items.decided.push(decided);
        }
        items
    }

    fn add(&mut self, event: &'a RawEvent) -> Result<(), Failure> {
        self.deliveries.push(event.typed()?);
        self.events.push(event);
        Ok(())
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Returns the ids of a range of items.
    pub fn ids(&self, range: Range<usize>) -> Vec<Uuid> {
        self.deliveries[range].iter().map(|delivery| delivery.id).collect()
    }

    /// Returns the delivery of an item.
    pub fn delivery(&self, index: usize) -> &Delivery<C> {
        &self.deliveries[index]
    }

    /// Returns an item, with its row among these.
    pub fn item<'b>(&'b self, index: usize, rows: &'b HashMap<Uuid, SettledRow>) -> Item<'b, C> {
        let (event, delivery) = (self.events[index], &self.deliveries[index]);
        Item { event, delivery, row: rows.get(&delivery.id) }
    }

    /// Returns the items of a range, each with its row among these.
    pub fn range<'b>(&'b self, range: Range<usize>, rows: &'b HashMap<Uuid, SettledRow>) -> Vec<Item<'b, C>> {
        range.map(|index| self.item(index, rows)).collect()
    }

    /// Returns the deliveries of a range that are still to be settled; copied only if some of the range are settled.
    pub fn fresh(&self, range: Range<usize>, rows: &HashMap<Uuid, SettledRow>) -> Cow<'_, [Delivery<C>]> {
        if rows.is_empty() {
            return Cow::Borrowed(&self.deliveries[range]);
        }
        let fresh = range.map(|index| self.item(index, rows)).filter(Item::is_fresh);
        fresh.map(|item| item.delivery.clone()).collect()
    }

    /// Returns one disposition for each event that was parsed, given those of the items.
    pub fn complete(self, settled: Vec<Disposition>) -> Vec<Disposition> {
        fill(self.decided, settled)
    }
}

/// Fills the gaps in `decided`, in order, with `rest`.
pub fn fill(decided: Vec<Option<Disposition>>, rest: Vec<Disposition>) -> Vec<Disposition> {
    let mut rest = rest.into_iter();
    let next = |decided: Option<Disposition>| {
        decided.or_else(|| rest.next()).expect("every item that was not decided has been settled")
    };
    decided.into_iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::Utc;
    use contracts::{NewEvent, Principal, TraceParent, envelope::Origin, ids::new_id, messages::ExpireHold};

    use super::*;
    use crate::runtime::settling::raw_event::decode_body;

    fn event() -> NewEvent {
        let (accepted_at, trace) = (Utc::now(), TraceParent::new());
        let origin = Origin { source: "/test", principal: Principal::System, accepted_at, trace, parent: None };
        NewEvent::new(new_id(), &ExpireHold::example(), &origin)
    }

    #[test]
    fn every_event_gets_its_own_disposition_in_order() {
        let (first, second) = (event(), event());
        let json = |event: &NewEvent| String::from_utf8(event.bytes.to_vec()).expect("JSON is text");
        let invalid = json(&event()).replace("registration_id", "registration");
        let body = Bytes::from(format!("[{0},{invalid},{0},{1}]", json(&first), json(&second)));
        let decoded = decode_body(body).into_iter().collect::<Result<Vec<_>, _>>();
        let events = decoded.expect("each of them is an event");
        let items = Items::<ExpireHold>::parse(&events);
        assert_eq!(items.ids(0..items.len()), [first.id, second.id]);
        let settled = |state| Disposition::Settled { state, follow_ups: Vec::new(), notified: None };
        let dispositions = items.complete(vec![settled("succeeded"), settled("rejected")]);
        let outcomes: Vec<_> = dispositions.iter().map(Disposition::outcome).collect();
        assert_eq!(outcomes, ["succeeded", "poison", "duplicate", "rejected"]);
    }
}
