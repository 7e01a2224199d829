#include "pool.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace codegen25 {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than what stands between two loops of a step, and than what Python does between two steps.
constexpr auto kSpin = std::chrono::microseconds(400);
// Who waits this long for the last task, and as long as several tasks take, waits for a thread that was put aside.
constexpr auto kHeldUp = std::chrono::microseconds(1500);
constexpr int kSeveral = 4;
// About what the system gives another program at a time; and, where it comes back and back, what hardly matters.
constexpr auto kAlone = std::chrono::milliseconds(4), kAloneLonger = std::chrono::milliseconds(128);

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

// Whether `ready` came true before `limit` was over.
template <class Ready>
bool spin(Clock::duration limit, const Ready& ready) {
    for (int i = 0; i < 256; i++) {
        if (ready()) return true;
        pause();
    }
    for (const auto end = Clock::now() + limit; Clock::now() < end;)
        for (int i = 0; i < 32; i++) {
            if (ready()) return true;
            pause();
        }
    return ready();
}

}  // namespace

Pool::Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { serve(); });
}

Pool::~Pool() {
    stop_.store(true);
    state_.fetch_add(uint64_t{1} << (2 * kBits));
    state_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int tasks, Function function, const void* context) {
    const auto start = Clock::now();
    if (workers_.empty() || tasks <= 1 || start < alone_until_) {
        for (int task = 0; task < tasks; task++) function(context, task);
        return;
    }
    function_ = function;
    context_ = context;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t loop = (state_.load(std::memory_order_relaxed) >> (2 * kBits)) + 1;
    uint64_t state = loop << (2 * kBits) | static_cast<uint64_t>(tasks) << kBits;
    state_.store(state);
    if (sleepers_.load() > 0) state_.notify_all();
    int own = 0;
    while (work(state)) own++;
    wait(tasks, own, Clock::now() - start);
}

// Claim a task of the current loop and do it. The fields read here stay as they are until the task is done.
bool Pool::work(uint64_t& seen) {
    seen = state_.load(std::memory_order_acquire);
    if ((seen & kMask) >= (seen >> kBits & kMask)) return false;
    const uint64_t claim = state_.fetch_add(1, std::memory_order_acq_rel);
    if ((claim & kMask) >= (claim >> kBits & kMask)) return false;
    function_(context_, static_cast<int>(claim & kMask));
    done_.fetch_add(1, std::memory_order_release);
    return true;
}

// `own` tasks of the loop were the caller's, and took so long together.
void Pool::wait(int tasks, int own, Clock::duration took) {
    const auto all = [&] { return done_.load(std::memory_order_acquire) == tasks; };
    if (spin(std::max<Clock::duration>(kHeldUp, took * kSeveral / std::max(own, 1)), all)) return;
    while (!all()) std::this_thread::yield();
    const auto now = Clock::now();
    const bool again = now < alone_until_ + 2 * alone_for_;
    alone_for_ = again ? std::min<Clock::duration>(2 * alone_for_, kAloneLonger) : kAlone;
    alone_until_ = now + alone_for_;
}

void Pool::serve() {
    uint64_t seen = 0;
    while (true) {
        while (work(seen)) {
        }
        // Asked behind `seen`: the destructor sets it before its change of the state, which is the last. Asked before,
        // that change could be taken for seen, and another waited for.
        if (stop_.load(std::memory_order_relaxed)) return;
        const auto changed = [&] { return state_.load(std::memory_order_acquire) != seen; };
        if (spin(kSpin, changed)) continue;
        sleepers_.fetch_add(1);
        state_.wait(seen);  // returns at once if it changed meanwhile
        sleepers_.fetch_sub(1);
    }
}

}  // namespace codegen25
