// Large zeroed memory, in huge pages where the system grants them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace codegen25 {

class Memory {
public:
    Memory() = default;
    explicit Memory(size_t bytes) : size_((bytes + kHuge - 1) / kHuge * kHuge) {
        if (size_ == 0) return;
        // One huge page more than needed, so that the start can be put on the border of one.
        void* all = mmap(nullptr, size_ + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                         0);
        if (all == MAP_FAILED) throw std::bad_alloc();
        const auto from = reinterpret_cast<uintptr_t>(all), to = (from + kHuge - 1) / kHuge * kHuge;
        if (to != from) munmap(all, to - from);
        if (from + kHuge != to) munmap(reinterpret_cast<void*>(to + size_), from + kHuge - to);
        data_ = reinterpret_cast<unsigned char*>(to);
#ifdef MADV_HUGEPAGE
        madvise(data_, size_, MADV_HUGEPAGE);  // refused where the kernel has none: then small pages serve as well
#endif
    }
    Memory(Memory&& other) noexcept { *this = std::move(other); }
    Memory& operator=(Memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Memory() {
        if (data_) munmap(data_, size_);
    }

    template <class T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }
    size_t size() const { return size_; }

private:
    static constexpr size_t kHuge = size_t{2} << 20;
    unsigned char* data_ = nullptr;
    size_t size_ = 0;
};

// Pieces of memory that are made together lie together: a huge page for each small matrix would be mostly air.
// A slab goes back to the system with the last of its pieces.
class Arena {
public:
    using Piece = std::shared_ptr<unsigned char>;

    // Zeroed, at the start of a cache line. Throws std::bad_alloc.
    Piece take(size_t bytes) {
        const std::lock_guard lock(mutex_);
        bytes = (bytes + kLine - 1) / kLine * kLine;
        if (!slab_ || slab_->size() - used_ < bytes) {
            slab_ = std::make_shared<Memory>(bytes > kSlab ? bytes : kSlab);
            used_ = 0;
        }
        Piece piece(slab_, slab_->as<unsigned char>() + used_);
        used_ += bytes;
        return piece;
    }

private:
    static constexpr size_t kSlab = size_t{32} << 20, kLine = 64;
    std::mutex mutex_;
    std::shared_ptr<Memory> slab_;
    size_t used_ = 0;
};

}  // namespace codegen25
