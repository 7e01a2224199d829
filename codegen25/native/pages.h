// Keys and values of sequences, in pages of 16 tokens that sequences with one past share.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace codegen25 {

// A page holds 16 tokens of all layers and heads: for each, keys then values as `Block` has them, in bf16.
class Pages {
public:
    // `limit`: bytes that all pages may take together; 0 for as many as there is memory.
    Pages(int layers, int kv_heads, int depth, size_t limit);

    size_t page_bytes() const { return page_bytes_; }
    size_t used_bytes() const { return used_ * page_bytes_; }

    // A page of zeros, held once. Throws std::bad_alloc at the limit.
    int take();
    void hold(int page) { holders_[page]++; }
    void release(int page);
    bool shared(int page) const { return holders_[page] > 1; }
    void copy(int from, int to);

    uint16_t* keys(int page, int layer, int head) const {
        return data_[page] + (static_cast<size_t>(layer) * kv_heads_ + head) * 2 * block_;
    }
    uint16_t* values(int page, int layer, int head) const { return keys(page, layer, head) + block_; }

private:
    int kv_heads_;
    size_t block_;  // numbers in the keys, or the values, of one head
    size_t page_bytes_, limit_, used_ = 0;
    std::vector<Memory> slabs_;
    std::vector<uint16_t*> data_;
    std::vector<int> holders_, free_;
};

// The pages of each sequence, by its number. Throws std::out_of_range for a number that is not there.
class Sequences {
public:
    explicit Sequences(Pages& pages) : pages_(pages) {}
    ~Sequences();
    Sequences(const Sequences&) = delete;
    Sequences& operator=(const Sequences&) = delete;

    int64_t create();
    int64_t fork(int64_t sequence);
    void truncate(int64_t sequence, int length);
    void free(int64_t sequence);
    bool has(int64_t sequence) const { return held_.contains(sequence); }
    int length(int64_t sequence) const { return held_.at(sequence).length; }
    const std::vector<int>& pages(int64_t sequence) const { return held_.at(sequence).pages; }

    // Pages of its own for `count` more tokens; the length stays. Throws std::bad_alloc, with the sequence as it was.
    void reserve(int64_t sequence, int count);
    void append(int64_t sequence, int count) { held_.at(sequence).length += count; }
    // Give back the pages behind the length.
    void trim(int64_t sequence);

private:
    struct Sequence {
        int length = 0;
        std::vector<int> pages;
    };

    Pages& pages_;
    int64_t next_ = 0;
    std::unordered_map<int64_t, Sequence> held_;
};

}  // namespace codegen25
