// libnvidia-ml.so.1 of the software device: UCX links to it, and finds no device in it: error 6,
// NVML_ERROR_NOT_FOUND.
#define NOT_FOUND(name) \
  extern "C" __attribute__((visibility("default"))) int name() { return 6; }

NOT_FOUND(nvmlInit)
NOT_FOUND(nvmlInit_v2)
NOT_FOUND(nvmlShutdown)
NOT_FOUND(nvmlDeviceGetCount_v2)
NOT_FOUND(nvmlDeviceGetHandleByIndex_v2)
NOT_FOUND(nvmlDeviceGetHandleByPciBusId_v2)
NOT_FOUND(nvmlDeviceGetHandleByUUID)
NOT_FOUND(nvmlDeviceGetNvLinkState)
NOT_FOUND(nvmlDeviceGetNvLinkCapability)
NOT_FOUND(nvmlDeviceGetNvLinkVersion)
NOT_FOUND(nvmlDeviceGetNvLinkRemotePciInfo_v2)
NOT_FOUND(nvmlDeviceGetFieldValues)
NOT_FOUND(nvmlDeviceGetGpuFabricInfo)
NOT_FOUND(nvmlDeviceGetGpuFabricInfoV)
NOT_FOUND(nvmlDeviceGetBAR1MemoryInfo)
NOT_FOUND(nvmlDeviceGetP2PStatus)
NOT_FOUND(nvmlDeviceGetPciInfo_v3)
NOT_FOUND(nvmlDeviceGetTopologyCommonAncestor)

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int) {
  return "not found (software device)";
}
