//! Exports as Parquet. A prompt that is messages is their JSON.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use super::{ExportRow, Exported, ReadError};

const SCHEMA: &str = "
message rating {
    required binary rating_id (STRING);
    required binary generation_id (STRING);
    required binary tenant (STRING);
    required int64 time (TIMESTAMP(MILLIS, true));
    optional binary model (STRING);
    optional binary base (STRING);
    optional binary adapter (STRING);
    optional int32 revision (INTEGER(32, false));
    optional binary digest (STRING);
    optional binary thumb (STRING);
    optional int32 score;
    required group labels (LIST) { repeated group list { required binary element (STRING); } }
    optional binary comment (STRING);
    optional binary corrected_text (STRING);
    optional binary end_user (STRING);
    optional binary prompt (STRING);
    optional binary completion (STRING);
}";
/// Rows of a row group, which are in memory together.
const GROUP: usize = 2048;
/// Bytes of texts after which a row group ends before.
const GROUP_BYTES: usize = 64 << 20;

/// Writes the rows, and returns how many there were.
pub async fn write_parquet(mut rows: Exported, to: impl Write + Send) -> Result<u64, ReadError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
    let (mut group, mut bytes, mut written) = (Vec::with_capacity(GROUP), 0, 0);
    loop {
        let row = rows.next().await?;
        let last = row.is_none();
        if let Some(row) = row {
            bytes += size(&row);
            group.push(row);
        }
        if !group.is_empty() && (last || group.len() == GROUP || bytes > GROUP_BYTES) {
            let mut to = writer.next_row_group()?;
            write(&mut to, &group)?;
            to.close()?;
            written += group.len() as u64;
            group.clear();
            bytes = 0;
        }
        if last {
            writer.close()?;
            return Ok(written);
        }
    }
}

fn size(row: &ExportRow) -> usize {
    let texts = [&row.comment, &row.corrected_text, &row.completion];
    let prompt = row.prompt.as_ref().map_or(0, |prompt| prompt.as_str().map_or(1024, str::len));
    prompt + texts.into_iter().flatten().map(String::len).sum::<usize>()
}

fn write<W: Write + Send>(to: &mut SerializedRowGroupWriter<'_, W>, rows: &[ExportRow]) -> Result<(), ParquetError> {
    let text = |text: &String| ByteArray::from(text.as_str());
    let prompt = |prompt: &Value| match prompt {
        Value::String(text) => ByteArray::from(text.as_str()),
        messages => ByteArray::from(messages.to_string().into_bytes()),
    };
    required::<ByteArrayType, W>(to, rows, |row| text(&row.rating_id))?;
    required::<ByteArrayType, W>(to, rows, |row| text(&row.generation_id))?;
    required::<ByteArrayType, W>(to, rows, |row| text(&row.tenant))?;
    required::<Int64Type, W>(to, rows, |row| row.at)?;
    optional::<ByteArrayType, W>(to, rows, |row| row.model.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.base.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.adapter.as_ref().map(text))?;
    optional::<Int32Type, W>(to, rows, |row| row.revision.map(u32::cast_signed))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.digest.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.thumb.map(|thumb| ByteArray::from(thumb.as_str())))?;
    optional::<Int32Type, W>(to, rows, |row| row.score.map(i32::from))?;
    labels(to, rows)?;
    optional::<ByteArrayType, W>(to, rows, |row| row.comment.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.corrected_text.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.end_user.as_ref().map(text))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.prompt.as_ref().map(prompt))?;
    optional::<ByteArrayType, W>(to, rows, |row| row.completion.as_ref().map(text))
}

fn required<T: DataType, W: Write + Send>(
    to: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[ExportRow],
    value: impl Fn(&ExportRow) -> T::T,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = rows.iter().map(value).collect();
    column::<T, W>(to, &values, None, None)
}

fn optional<T: DataType, W: Write + Send>(
    to: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[ExportRow],
    value: impl Fn(&ExportRow) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = rows.iter().map(value).collect();
    let defined: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column::<T, W>(to, &values, Some(&defined), None)
}

/// A list's elements are told apart by where one begins (repetition level 0),
/// and an empty list by having none (definition level 0).
fn labels<W: Write + Send>(to: &mut SerializedRowGroupWriter<'_, W>, rows: &[ExportRow]) -> Result<(), ParquetError> {
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if row.labels.is_empty() {
            defined.push(0);
            repeated.push(0);
        }
        for (at, label) in row.labels.iter().enumerate() {
            values.push(ByteArray::from(label.as_str()));
            defined.push(1);
            repeated.push((at > 0).into());
        }
    }
    column::<ByteArrayType, W>(to, &values, Some(&defined), Some(&repeated))
}

fn column<T: DataType, W: Write + Send>(
    to: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = to.next_column()?.ok_or_else(|| ParquetError::General("the schema has no more columns".into()))?;
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}

impl From<ParquetError> for ReadError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error.to_string())
    }
}
