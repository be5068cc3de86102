#include "services/calibration/engine_message.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/calibration/words.h"

namespace ratequant::calibration {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string ErrorOf(const std::string& line) {
  auto message = ParseEngineMessage(line);
  return message.ok() ? "" : std::string(message.status().message());
}

TEST(EngineMessage, ParsesHello) {
  auto message = ParseEngineMessage(
      R"({"type":"hello","protocol":1,"geometry":{"layers":30,"kv_heads":3,)"
      R"("query_heads":9,"head_dim":64},"dtype":"bfloat16","device":"cpu",)"
      R"("sequences":16,"sequence_length":512,"model_digest":"a",)"
      R"("tokenizer_digest":"","token_digest":"c","software":["x 1","y 2"],)"
      R"("later":true})");
  ASSERT_TRUE(message.ok()) << message.status();
  const auto& hello = std::get<HelloMessage>(*message);
  EXPECT_EQ(hello.geometry.layers(), 30);
  EXPECT_EQ(hello.geometry.query_heads(), 9);
  EXPECT_EQ(hello.geometry.head_dim(), 64);
  EXPECT_EQ(hello.dtype, "bfloat16");
  EXPECT_EQ(hello.sequence_length, 512);
  EXPECT_EQ(hello.token_digest, "c");
  EXPECT_THAT(hello.software, ElementsAre("x 1", "y 2"));
}

TEST(EngineMessage, ParsesTheOthers) {
  auto layer = ParseEngineMessage(
      R"({"type":"layer","sequence":3,"layer":29,"slot":1})");
  ASSERT_TRUE(layer.ok());
  EXPECT_EQ(std::get<LayerMessage>(*layer).layer, 29);
  auto sequence = ParseEngineMessage(
      R"({"type":"sequence","sequence":3,"loss_sum":1.5e3,"loss_tokens":511})");
  ASSERT_TRUE(sequence.ok());
  EXPECT_EQ(std::get<SequenceMessage>(*sequence).loss_sum, 1500);
  auto error = ParseEngineMessage(
      R"({"type":"error","reason":"TEXT_EMPTY","message":"none"})");
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(std::get<ErrorMessage>(*error).reason, "TEXT_EMPTY");
  auto beat = ParseEngineMessage(R"({"type":"heartbeat","note":"n"})");
  ASSERT_TRUE(beat.ok());
  EXPECT_TRUE(std::holds_alternative<HeartbeatMessage>(*beat));
  auto done = ParseEngineMessage(R"({"type":"done"})");
  ASSERT_TRUE(done.ok());
  ASSERT_TRUE(std::holds_alternative<DoneMessage>(*done));
  EXPECT_EQ(std::get<DoneMessage>(*done).peak_memory, 0u);
  done = ParseEngineMessage(
      R"({"type":"done","peak_memory":7,"peak_device_memory":9})");
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(std::get<DoneMessage>(*done).peak_memory, 7u);
  EXPECT_EQ(std::get<DoneMessage>(*done).peak_device_memory, 9u);
}

TEST(EngineMessage, SaysWhatIsWrongAndQuotesTheLine) {
  EXPECT_THAT(ErrorOf("hello"),
              HasSubstr("\"hello\": it is not a JSON object"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("field 'type' is missing"));
  EXPECT_THAT(ErrorOf(R"({"type":7})"), HasSubstr("'type' is not a string"));
  EXPECT_THAT(ErrorOf(R"({"type":"x"})"), HasSubstr("its type is none of"));
  EXPECT_THAT(ErrorOf(R"({"type":"layer","sequence":-1,"layer":0,"slot":0})"),
              HasSubstr("'sequence' is not a non-negative integer"));
  EXPECT_THAT(
      ErrorOf(R"({"type":"layer","sequence":4294967296,"layer":0,"slot":0})"),
      HasSubstr("'sequence' is above 4294967295"));
  EXPECT_THAT(ErrorOf(R"({"type":"layer","sequence":1.5,"layer":0,"slot":0})"),
              HasSubstr("'sequence' is not a non-negative integer"));
  EXPECT_THAT(ErrorOf(R"({"type":"hello","protocol":9})"),
              HasSubstr("speaks protocol 9, this worker speaks 1"));
  EXPECT_THAT(ErrorOf("\x01\xff"), HasSubstr("\\x01\\xff"));
  EXPECT_THAT(ErrorOf(std::string(500, 'x')), HasSubstr("xxx...\""));
  EXPECT_THAT(ErrorOf(std::string(60000, '[')), HasSubstr("not a JSON object"));
}

TEST(EngineMessage, WritesOneLine) {
  EXPECT_EQ(ReleaseMessage(3), "{\"slot\":3,\"type\":\"release\"}\n");
  const std::string start = StartMessage("/proc/1/fd/\n7", 2, 1 << 20);
  EXPECT_EQ(start.find('\n'), start.size() - 1);
  EXPECT_THAT(start, HasSubstr("\"slot_bytes\":1048576"));
}

std::vector<std::string> Words(const std::string& command) {
  auto words = SplitWords(command);
  EXPECT_TRUE(words.ok()) << words.status();
  return words.ok() ? *words : std::vector<std::string>();
}

TEST(SplitWords, SplitsAsAShell) {
  EXPECT_THAT(Words(" python3  -m a.b\t"), ElementsAre("python3", "-m", "a.b"));
  EXPECT_THAT(Words(R"('a b'"c d"\ e '')"), ElementsAre("a bc d e", ""));
  EXPECT_THAT(Words(R"("a\"b\\c\d" 'x\y')"),
              ElementsAre(R"(a"b\c\d)", R"(x\y)"));
  // What Python's shlex.join makes of it's.
  EXPECT_THAT(Words(R"('it'"'"'s')"), ElementsAre("it's"));
  EXPECT_THAT(Words(""), IsEmpty());
  EXPECT_FALSE(SplitWords("a 'b").ok());
  EXPECT_FALSE(SplitWords("a \"b").ok());
  EXPECT_FALSE(SplitWords("a\\").ok());
}

}  // namespace
}  // namespace ratequant::calibration
