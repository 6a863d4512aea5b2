#include <iostream>
#include "greet.hpp"
int main() { std::cout << greet("C++") << '\n'; }
