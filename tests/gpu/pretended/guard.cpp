// A CUDA of one device that computes nothing: what libtorch asks of it while tensors are computed on the CPU.
//
// Pinned memory is ordinary memory whose addresses are remembered, so that Tensor.is_pinned() answers as with CUDA.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>

namespace {

std::mutex pinned_mutex;
std::map<std::uintptr_t, std::size_t> pinned_blocks; // first address -> size in bytes

void free_pinned(void* block) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned_blocks.erase(reinterpret_cast<std::uintptr_t>(block));
  std::free(block);
}

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  auto next = pinned_blocks.upper_bound(address);
  if (next == pinned_blocks.begin()) {
    return false;
  }
  const auto block = std::prev(next);
  return address < block->first + block->second;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t size) override {
    void* block = size == 0 ? nullptr : std::aligned_alloc(64, (size + 63) / 64 * 64);
    if (block != nullptr) {
      std::lock_guard<std::mutex> lock(pinned_mutex);
      pinned_blocks[reinterpret_cast<std::uintptr_t>(block)] = size;
    }
    return {block, block, &free_pinned, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* target, const void* source, std::size_t size) const override {
    default_copy_data(target, source, size);
  }
};

struct PretendedGuard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::DeviceType::CUDA;
  PretendedGuard() = default;
  explicit PretendedGuard(c10::DeviceType) {}
  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {static_type, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::UNSAFE, getDevice(), 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, PretendedGuard)

} // namespace

namespace at {

// Registered by its name: libtorch creates "CUDAHooks" when it first asks for CUDA.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  Allocator* getPinnedMemoryAllocator() const override {
    static PinnedAllocator allocator;
    return &allocator;
  }
};
REGISTER_CUDA_HOOKS(CUDAHooks)

} // namespace at
