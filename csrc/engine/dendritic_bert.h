/* Text classification in C: a model file of `dendritic-bert export --format engine`, and its logits.
 *
 * A model may be used by several threads at once. Functions that fail give null or a negative number, and
 * dendritic_bert_error says why on the thread that called. */
#ifndef DENDRITIC_BERT_H
#define DENDRITIC_BERT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DENDRITIC_BERT_API
#else
#define DENDRITIC_BERT_API __attribute__((visibility("default")))
#endif

typedef struct dendritic_bert_model dendritic_bert_model;

/* The model in a file, or one in memory, whose bytes must begin at a multiple of 64 and stay until it is closed. A file
 * is mapped, and must not be written over while a program has it open, which the system would end by SIGBUS: copy
 * another model under another name, and then rename it. */
DENDRITIC_BERT_API dendritic_bert_model* dendritic_bert_open(const char* path);
DENDRITIC_BERT_API dendritic_bert_model* dendritic_bert_open_memory(const void* bytes, size_t size);
DENDRITIC_BERT_API void dendritic_bert_close(dendritic_bert_model* model);

/* How many labels there are, and the name of each in UTF-8; null if there is none of this number. */
DENDRITIC_BERT_API size_t dendritic_bert_num_labels(const dendritic_bert_model* model);
DENDRITIC_BERT_API const char* dendritic_bert_label(const dendritic_bert_model* model, size_t label);

/* Writes the logits [num_texts, num_labels] of texts in UTF-8, on at most `threads` threads, to the same bits for any
 * number of them. Returns how many texts were longer than the model takes, and cut; or -1. A byte that is not UTF-8 is
 * read as U+FFFD. A text has at most 1 GiB. A logit that is NaN or infinite is an error. */
DENDRITIC_BERT_API int64_t dendritic_bert_classify(const dendritic_bert_model* model, const char* const* texts,
                                                   const size_t* lengths, size_t num_texts, size_t threads,
                                                   float* logits);

/* The same for texts one behind another, as Arrow has them: text i is bytes [offsets[i], offsets[i + 1]), so that there
 * are num_texts + 1 offsets, none of them above `size`. */
DENDRITIC_BERT_API int64_t dendritic_bert_classify_blob(const dendritic_bert_model* model, const char* bytes,
                                                        size_t size, const int32_t* offsets, size_t num_texts,
                                                        size_t threads, float* logits);
DENDRITIC_BERT_API int64_t dendritic_bert_classify_large_blob(const dendritic_bert_model* model, const char* bytes,
                                                              size_t size, const int64_t* offsets, size_t num_texts,
                                                              size_t threads, float* logits);

/* What the logits stand for, as the model was trained: the softmax or the sigmoid after division by its temperature, or
 * the logits themselves. `scores` may be `logits`. */
DENDRITIC_BERT_API void dendritic_bert_scores(const dendritic_bert_model* model, const float* logits, size_t num_texts,
                                              float* scores);

/* Why the last function that failed on this thread did, in a sentence, which stays until another one fails there; "" if
 * none has. */
DENDRITIC_BERT_API const char* dendritic_bert_error(void);

#ifdef __cplusplus
}
#endif

#endif
