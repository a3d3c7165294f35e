//! A stream that turns each item of another stream into any number of items.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;

/// The items that `map` makes of each item of `source`. The stream ends when the source ends.
///
/// `map` also gets the source, so that it can take more items that are ready.
pub struct FlatMap<S, T, F> {
    /// Items that wait to be polled. `None` in an idle stream.
    #[expect(clippy::box_collection, reason = "the queue of an idle stream takes one word")]
    ready: Option<Box<VecDeque<T>>>,
    source: S,
    map: F,
}

impl<S, T, F> FlatMap<S, T, F>
where
    S: Stream,
    F: FnMut(&mut S, S::Item) -> VecDeque<T>,
{
    /// Begins with the items of `first`.
    pub(crate) fn new(first: VecDeque<T>, source: S, map: F) -> Self {
        Self { ready: (!first.is_empty()).then(|| Box::new(first)), source, map }
    }
}

impl<S, T, F> Stream for FlatMap<S, T, F>
where
    S: Stream + Unpin,
    F: FnMut(&mut S, S::Item) -> VecDeque<T> + Unpin,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.ready.as_mut().and_then(|ready| ready.pop_front()) {
                this.ready.take_if(|ready| ready.is_empty());
                return Poll::Ready(Some(item));
            }
            let Some(item) = ready!(Pin::new(&mut this.source).poll_next(cx)) else { return Poll::Ready(None) };
            let mut items = (this.map)(&mut this.source, item);
            let first = items.pop_front();
            this.ready = (!items.is_empty()).then(|| Box::new(items));
            if first.is_some() {
                return Poll::Ready(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::{StreamExt as _, iter};

    use super::*;

    #[tokio::test]
    async fn each_item_becomes_any_number_of_items_and_the_map_can_take_more_of_the_source() {
        let mut taken = Vec::new();
        let source = iter([0, 2, 1, 0, 3, 4]);
        let stream = FlatMap::new([9].into(), source, |source: &mut tokio_stream::Iter<_>, item: usize| {
            let mut items = VecDeque::from(vec![item; item]);
            if item == 3 {
                let Poll::Ready(more) = Pin::new(source).poll_next(&mut Context::from_waker(std::task::Waker::noop()))
                else {
                    panic!("the source is ready");
                };
                items.extend(more);
            }
            items
        });
        let mut stream = std::pin::pin!(stream);
        while let Some(item) = stream.next().await {
            taken.push(item);
        }
        assert_eq!(taken, [9, 2, 2, 1, 3, 3, 3, 4]);
        assert!(stream.ready.is_none(), "an idle stream keeps no queue");
    }
}
