// Result codes of the CUDA driver and runtime, as cuda.h and driver_types.h of CUDA 13.0 number them.
#pragma once

namespace soft {

enum Status : int {
  Ok = 0,
  InvalidValue = 1,
  OutOfMemory = 2,
  NotInitialized = 3,
  InsufficientDriver = 35,  // of the runtime only
  DeviceUnavailable = 46,
  NoDevice = 100,
  InvalidDevice = 101,
  InvalidImage = 200,
  InvalidContext = 201,
  NoBinary = 209,
  EccUncorrectable = 214,
  PeerAccessUnsupported = 217,
  InvalidPtx = 218,
  InvalidHandle = 400,
  NotFound = 500,
  NotReady = 600,
  IllegalAddress = 700,
  LaunchOutOfResources = 701,
  PeerAccessAlreadyEnabled = 704,
  PeerAccessNotEnabled = 705,
  HostMemoryAlreadyRegistered = 712,
  HostMemoryNotRegistered = 713,
  LaunchFailed = 719,
  NotSupported = 801,
  CaptureUnsupported = 900,
  CaptureInvalidated = 901,
  CaptureUnmatched = 903,
  CaptureUnjoined = 904,
  CaptureIsolation = 905,
  CaptureImplicit = 906,
  CapturedEvent = 907,
  Unknown = 999,
};

/// The code's name in cuda.h and in driver_types.h, and its text; null if the code has none here.
struct StatusText {
  int code;
  const char* driverName;
  const char* runtimeName;
  const char* text;
};
const StatusText* statusText(int code);

}  // namespace soft
