//! The protobuf codec of `Signal`: small buffers, because most streams are idle, and `INVALID_ARGUMENT` for a malformed message.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::error::{Error, Invalid};

/// tonic's codec with smaller buffers and a [`StrictDecoder`]. `build.rs` names it for the generated client and server.
pub(super) struct SignalCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SignalCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SignalCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(ProstCodec::<T, U>::raw_decoder(settings()))
    }
}

/// Answers a malformed message with `INVALID_ARGUMENT`, because the fault is the client's. tonic's own decoder would answer INTERNAL.
/// `RequestFrames` does the same for messages that are framed wrongly.
pub(super) struct StrictDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(bytes).map_err(|cause| {
            tracing::debug!(cause = cause.message(), "refused a malformed message");
            Error::from(Invalid::Body).into()
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(INITIAL_BUFFER, BATCH)
}

/// The first capacity of a call's buffers, in bytes; they grow with the messages. tonic's default of 8 KiB would make every idle
/// stream larger.
const INITIAL_BUFFER: usize = 64;

/// The encoder writes to the connection after this many bytes of messages, even if more messages are ready.
const BATCH: usize = 32 * 1024;
