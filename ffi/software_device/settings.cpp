#include "settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>

namespace soft {
namespace {

uint64_t number(const std::string& text, uint64_t most) {
  size_t used = 0;
  uint64_t value = 0;
  try {
    value = std::stoull(text, &used);
  } catch (const std::exception&) {
    throw std::invalid_argument("expected a whole number, got \"" + text + "\"");
  }
  const std::string unit = text.substr(used);
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (shift < 0) throw std::invalid_argument("unknown unit \"" + unit + "\"; use K, M or G");
  if (value > most >> shift) throw std::invalid_argument("at most " + std::to_string(most));
  return value << shift;
}

Order orderNamed(const std::string& text) {
  if (text == "eager") return Order::Eager;
  if (text == "late") return Order::Late;
  if (text == "random") return Order::Random;
  throw std::invalid_argument("expected eager, late or random, got \"" + text + "\"");
}

using Setter = std::function<void(Settings&, const std::string&)>;

const std::map<std::string, Setter>& setters() {
  constexpr uint64_t anyBytes = uint64_t(1) << 40, anyCount = uint64_t(1) << 40;
  static const std::map<std::string, Setter> all = {
      {"devices", [](auto& s, auto& v) { s.devices = int(number(v, 16)); }},
      {"identity", [](auto& s, auto& v) { s.identity = number(v, ~uint64_t(0) >> 32); }},
      {"memory", [](auto& s, auto& v) { s.memoryBytes = number(v, anyBytes); }},
      {"order", [](auto& s, auto& v) { s.order = orderNamed(v); }},
      {"seed", [](auto& s, auto& v) { s.seed = number(v, ~uint64_t(0)); }},
      {"progress", [](auto& s, auto& v) { s.progressMs = int(number(v, 3600000)); }},
      {"poison", [](auto& s, auto& v) { s.poison = number(v, 1) == 1; }},
      {"driver", [](auto& s, auto& v) { s.driverVersion = int(number(v, 99999)); }},
      {"kernels", [](auto& s, auto& v) { s.kernels = v; }},
      {"busy", [](auto& s, auto& v) { s.busy = number(v, 1) == 1; }},
      {"fail-allocation", [](auto& s, auto& v) { s.failAllocation = number(v, anyCount); }},
      {"fail-allocation-above", [](auto& s, auto& v) { s.failAllocationAbove = number(v, anyBytes); }},
      {"fail-work", [](auto& s, auto& v) { s.failWork = number(v, anyCount); }},
      {"skip-kernel", [](auto& s, auto& v) { s.skipKernel = v; }},
      {"fail-kernel", [](auto& s, auto& v) { s.failKernel = v; }},
      {"fail-code", [](auto& s, auto& v) { s.failCode = int(number(v, 999)); }},
      {"fault-once", [](auto& s, auto& v) { s.faultOnce = v; }},
      {"skew-products", [](auto& s, auto& v) { s.skewProducts = int(number(v, 2)); }},
      {"fail-cubin", [](auto& s, auto& v) { s.failCubin = int(number(v, 999)); }},
      {"fail-load", [](auto& s, auto& v) { s.failLoad = int(number(v, 999)); }},
      {"compute-capability", [](auto& s, auto& v) { s.computeCapability = int(number(v, 999)); }},
      {"hang-work", [](auto& s, auto& v) { s.hangWork = number(v, anyCount); }},
  };
  return all;
}

void apply(Settings& changed, const std::string& text) {
  std::istringstream pairs(text);
  for (std::string pair; std::getline(pairs, pair, ',');) {
    const size_t equals = pair.find('=');
    const std::string key = pair.substr(0, equals);
    const auto setter = setters().find(key);
    if (equals == std::string::npos || setter == setters().end()) {
      std::string known;
      for (auto& entry : setters()) known += (known.empty() ? "" : ", ") + entry.first;
      throw std::invalid_argument("\"" + pair + "\" is not key=value with a key of: " + known);
    }
    try {
      setter->second(changed, pair.substr(equals + 1));
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(key + ": " + error.what());
    }
  }
}

std::string change(Settings& current, const std::string& text) {
  Settings changed = current;
  try {
    apply(changed, text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  current = changed;
  return "";
}

struct Environment {
  Settings settings;
  std::string complaint;
  Environment() {
    const char* text = std::getenv("LLUMNIX_SOFTWARE_DEVICE");
    if (text != nullptr) complaint = change(settings, text);
  }
};

Environment& environment() {
  static Environment& one = *new Environment;
  return one;
}

}  // namespace

Settings& settings() { return environment().settings; }
bool takesFault() {
  const std::string& path = settings().faultOnce;
  if (path.empty()) return true;
  const int made = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
  if (made >= 0) close(made);
  return made >= 0;
}
const std::string& environmentComplaint() { return environment().complaint; }
std::string configure(const std::string& text) { return change(settings(), text); }

}  // namespace soft
