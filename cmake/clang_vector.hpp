// Included before everything else where clang compiles with the library of g++ 12. The constexpr std::vector of that
// library has clang look inside the element type earlier than LibTorch 1.13, whose lists hold a type declared only so
// far, allows: here the same vector is made without constexpr.
#pragma once

#include <string>

#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE == 12 && defined(_GLIBCXX20_CONSTEXPR)
#include <bits/stl_uninitialized.h>
#pragma push_macro("_GLIBCXX20_CONSTEXPR")
#undef _GLIBCXX20_CONSTEXPR
#define _GLIBCXX20_CONSTEXPR
// Declared as constexpr before, and used by std::fill over std::vector<bool> only, which this project has nowhere.
#define __fill_a1 __fill_a1_without_constexpr
#include <bits/stl_vector.h>
// Needs the one above.
#include <bits/stl_bvector.h>
#undef __fill_a1
#include <vector>
#pragma pop_macro("_GLIBCXX20_CONSTEXPR")
#endif
