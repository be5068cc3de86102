#ifndef RATEQUANT_CLIENTS_REPLAY_CAPTURE_FILE_H_
#define RATEQUANT_CLIENTS_REPLAY_CAPTURE_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/replay/capture_metadata.h"
#include "clients/replay/mapped_file.h"
#include "ratequant/kv/heads.h"

namespace ratequant::replay {

// A recorded capture, mapped. Thread-safe; the file must not change while it is
// open.
class CaptureFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT, naming what is wrong, for a
  // file that isn't a capture of this version, whole and with every tensor. The
  // tensors' values are not looked at.
  static absl::StatusOr<CaptureFile> Open(const std::string& path);

  const CaptureInfo& info() const { return info_; }

  // Heads [kv_heads, tokens, head_dim], for queries [query_heads, tokens,
  // head_dim]; valid as long as this object. `sequence` and `layer` are in
  // range.
  kv::ConstHeads keys(int sequence, int layer) const;
  kv::ConstHeads values(int sequence, int layer) const;
  kv::ConstHeads queries(int sequence, int layer) const;

 private:
  CaptureFile(MappedFile file, CaptureInfo info, std::vector<const void*> data)
      : file_(std::move(file)),
        info_(std::move(info)),
        data_(std::move(data)) {}

  kv::ConstHeads Heads(int sequence, int layer, int kind) const;

  MappedFile file_;
  CaptureInfo info_;
  std::vector<const void*> data_;  // [sequences, layers, kinds]
};

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_CAPTURE_FILE_H_
